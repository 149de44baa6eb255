//! Kamailio with its dispatcher between a caller and the carriers: what failover costs where one process on one host
//! does all of it. Benches measure it beside Ringward.
use crate::{Carrier, Dialog, HostName, Lab, LabError, clock, command, network, packages, process};
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

const NAME: &str = "kamailio";
/// The last number of its address.
const HOST: u8 = 77;
const PORT: u16 = 5060;
/// Where the caller beside it is.
const CALLER_PORT: u16 = 5070;
/// For a final answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// `flags` 2 keeps the other destinations for failover, algorithm 8 takes the one of highest priority first.
const CONFIG: &str = "#!KAMAILIO
debug=0
log_stderror=yes
fork=yes
children=4
auto_aliases=no
listen=udp:@ADDRESS@:5060
mpath=\"@MODULES@\"
loadmodule \"tm.so\"
loadmodule \"sl.so\"
loadmodule \"pv.so\"
loadmodule \"dispatcher.so\"
modparam(\"dispatcher\", \"list_file\", \"@LIST@\")
modparam(\"dispatcher\", \"flags\", 2)
request_route {
    if (method == \"ACK\") {
        t_relay();
        exit;
    }
    if (!ds_select_dst(\"1\", \"8\")) {
        sl_send_reply(\"500\", \"No destination\");
        exit;
    }
    t_on_failure(\"OTHER\");
    t_relay();
}
failure_route[OTHER] {
    if (t_check_status(\"503\") && ds_next_dst()) {
        t_on_failure(\"OTHER\");
        t_relay();
    }
}
";

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    host: HostName,
    address: Ipv4Addr,
}

impl Kamailio {
    /// Installs it where it is missing, and starts it on a host of its own: all calls go to `first`, and what that
    /// answers with 503 to `second`.
    ///
    /// # Errors
    /// It cannot be installed, or does not start.
    pub fn start(lab: &Lab, first: &Carrier, second: &Carrier) -> Result<Self, LabError> {
        packages::ensure(packages::KAMAILIO)?;
        let (host, address) = (HostName(NAME.into()), lab.subnet().host(HOST));
        host.lay_folder(lab.subnet())?;
        network::lay_host(NAME, &[address])?;
        let write = |name: &str, text: &str| {
            let path = host.folder().join(name);
            fs::write(&path, text).map_err(LabError::file("write", &path)).map(|()| path)
        };
        let list = format!("1 sip:{}:{PORT} 0 10\n1 sip:{}:{PORT} 0 5\n", first.address(), second.address());
        let list = write("dispatcher.list", &list)?;
        let modules = format!("/usr/lib/{}-linux-gnu/kamailio/modules", std::env::consts::ARCH);
        let config = CONFIG
            .replace("@ADDRESS@", &address.to_string())
            .replace("@MODULES@", &modules)
            .replace("@LIST@", &list.display().to_string());
        let config = write("kamailio.cfg", &config)?;
        let log = host.folder().join("log/kamailio.log");
        let open = || fs::File::create(&log).map_err(LabError::file("create", &log));
        let mut line = host.in_namespace();
        // `-DD`: it stays in the foreground, so that its pid is known.
        line.args(["kamailio", "-DD", "-E", "-f"]).arg(config);
        line.arg("-Y")
            .arg(host.folder().join("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(open()?);
        process::spawn(NAME, line)?;
        let kamailio = Kamailio { host, address };
        let hint = format!("see {}", log.display());
        let listens = || {
            let said = command::finish(
                "see Kamailio's socket",
                kamailio.host.in_namespace().args(["ss", "-Hlun", &format!("sport = :{PORT}")]),
            );
            said.is_ok_and(|said| !said.trim().is_empty())
        };
        clock::wait_until("Kamailio to listen", Duration::from_secs(10), &hint, listens)?;
        Ok(kamailio)
    }

    /// Its version, as it says itself.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn version(&self) -> Result<String, LabError> {
        let said = command::run("ask Kamailio for its version", "kamailio", ["-v"])?;
        Ok(said.split_whitespace().nth(2).unwrap_or("?").to_owned())
    }

    /// Calls these numbers through it, one after the other, each to its final answer (which must be no 2xx).
    ///
    /// # Errors
    /// A call gets no final answer.
    pub fn call(&self, numbers: &[String]) -> Result<(), LabError> {
        self.host.inside(|| {
            let broken = |source| LabError::file("use a socket of", PathBuf::from(NAME))(source);
            let socket = UdpSocket::bind((self.address, CALLER_PORT)).map_err(broken)?;
            socket.connect((self.address, PORT)).map_err(broken)?;
            socket.set_read_timeout(Some(ANSWER_MAX)).map_err(broken)?;
            for (n, number) in numbers.iter().enumerate() {
                socket
                    .send(self.request("INVITE", number, n, "", &self.offer()).as_bytes())
                    .map_err(broken)?;
                let to = self.final_answer(&socket, n)?;
                socket.send(self.request("ACK", number, n, &to, "").as_bytes()).map_err(broken)?;
            }
            Ok(())
        })
    }

    /// Waits for it, and gives the tag of its To.
    fn final_answer(&self, socket: &UdpSocket, n: usize) -> Result<String, LabError> {
        let mut buffer = [0; 65_535];
        loop {
            let length = socket.recv(&mut buffer).map_err(LabError::file("wait for Kamailio's", "answer"))?;
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
            let code = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
            if code.is_some_and(|code| code >= 200) && text.contains(&call_id(n)) {
                let to = text.lines().find(|line| line.starts_with("To:")).unwrap_or_default();
                return Ok(to.split_once(";tag=").map(|(_, tag)| format!(";tag={tag}")).unwrap_or_default());
            }
        }
    }

    fn request(&self, method: &str, number: &str, n: usize, to_tag: &str, body: &str) -> String {
        let (address, id) = (self.address, call_id(n));
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:{number}@{address}:{PORT} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {address}:{CALLER_PORT};branch=z9hG4bK{n}\r\nMax-Forwards: 70\r\n\
             From: <sip:caller@{address}>;tag={n}\r\nTo: <sip:{number}@{address}>{to_tag}\r\nCall-ID: {id}\r\n\
             CSeq: 1 {method}\r\nContact: <sip:caller@{address}:{CALLER_PORT}>\r\n{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn offer(&self) -> String {
        let address = self.address;
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
             m=audio 20000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
        )
    }
}

fn call_id(n: usize) -> String {
    format!("bench-{n}-of-kamailio")
}

/// From the 503 that `first` sent to the INVITE that `second` got of the same number, for every number that has both.
#[must_use]
pub fn gaps(first: &[Dialog], second: &[Dialog]) -> Vec<Duration> {
    let refused = first.iter().filter_map(|dialog| match dialog.ended {
        Some((503, at)) => Some((dialog.number.as_str(), at)),
        Some(_) | None => None,
    });
    let gap = |(number, at): (&str, Duration)| {
        let next = second.iter().find(|dialog| dialog.number == number)?;
        next.at.checked_sub(at)
    };
    refused.filter_map(gap).collect()
}
