//! A SIP request in the pieces that a stranger chooses.
use std::net::Ipv4Addr;

/// A request without a body, or with one; what is put into it is sent as it is.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// The URI of its first line.
    pub(crate) uri: String,
    /// What stands in From before the URI, with a blank behind it.
    pub(crate) from_name: String,
    /// The user part of From's URI.
    pub(crate) user: String,
    /// The whole of To, without its name.
    pub(crate) to: String,
    pub(crate) call_id: String,
    /// The whole of Contact.
    pub(crate) contact: String,
    /// Host and parameters of Via behind the port.
    pub(crate) via: String,
    /// Whole lines, each with its end.
    pub(crate) more: String,
    pub(crate) source: Ipv4Addr,
    pub(crate) tag: String,
    pub(crate) body: String,
}

impl Request {
    /// A REGISTER of an account, as a phone at `source:port` sends it.
    pub(crate) fn register(user: &str, source: Ipv4Addr, port: u16, target: Ipv4Addr, tag: &str) -> Self {
        Request {
            method: "REGISTER",
            uri: format!("sip:{target}"),
            from_name: String::new(),
            user: user.to_owned(),
            to: format!("<sip:{user}@{target}>"),
            call_id: tag.to_owned(),
            contact: format!("<sip:x@{source}:{port}>"),
            via: format!("{source}:{port}"),
            more: String::new(),
            source,
            tag: tag.to_owned(),
            body: String::new(),
        }
    }

    /// An INVITE to extension 100.
    pub(crate) fn invite(user: &str, source: Ipv4Addr, port: u16, target: Ipv4Addr, tag: &str) -> Self {
        let body = format!(
            "v=0\r\no=- 1 1 IN IP4 {source}\r\ns=-\r\nc=IN IP4 {source}\r\nt=0 0\r\n\
             m=audio 20000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
        );
        Request {
            method: "INVITE",
            uri: format!("sip:100@{target}"),
            to: format!("<sip:100@{target}>"),
            more: "Content-Type: application/sdp\r\n".into(),
            body,
            ..Self::register(user, source, port, target, tag)
        }
    }

    /// As it goes over the wire.
    pub(crate) fn text(&self) -> String {
        let Request { method, uri, from_name, user, to, call_id, contact, via, more, source, tag, body } =
            self;
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK{tag};rport\r\n\
             Max-Forwards: 70\r\nFrom: {from_name}<sip:{user}@{source}>;tag={tag}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 {method}\r\nContact: {contact}\r\nExpires: 60\r\n{more}Content-Length: {length}\r\n\r\n{body}",
            length = body.len(),
        )
    }
}
