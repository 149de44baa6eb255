//! What makes a carrier of the lab speak TLS, and demand SRTP of who comes by it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::{Carrier, wait_until};

/// Has it listen for TLS too, with a certificate of a CA of its own; gives that CA's certificate. Keys are pressed as tones
/// there, which only who decrypts the audio can hear; an INVITE without SRTP is refused.
pub(crate) fn speak(carrier: &Carrier) -> String {
    let etc = carrier.host().folder().join("etc");
    let address = carrier.address();
    certificate(&etc, "ca", "CN=carriers", &["-addext", "keyUsage=keyCertSign"]);
    let name = format!("subjectAltName=IP:{address}");
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
    certificate(&etc, "own", "CN=carrier", &[&signed[..], &["-addext", &name]].concat());
    let folder = "/srv/ringward/etc";
    let text = format!(
        "[lab-tls]\ntype = transport\nprotocol = tls\nbind = {address}:5061\nmethod = tlsv1_2\n\
         cert_file = {folder}/own.pem\npriv_key_file = {folder}/own.key\n\n\
         [pbx-tls]\ntype = endpoint\ncontext = from-pbx\ndisallow = all\nallow = ulaw,alaw\ndirect_media = no\n\
         rtp_symmetric = yes\ndtmf_mode = inband\nmedia_encryption = sdes\n\n\
         [pbx-tls]\ntype = identify\nendpoint = pbx-tls\nmatch_request_uri = /^sips?:[+0-9]*@{}:5061/\n",
        address.to_string().replace('.', "[.]")
    );
    std::fs::write(etc.join("pjsip_more.conf"), text).unwrap();
    carrier.console("module reload res_pjsip.so").unwrap();
    let listens = || carrier.console("pjsip show transports").is_ok_and(|said| said.contains("lab-tls"));
    wait_until("the carrier to speak TLS", Duration::from_secs(10), "", listens).unwrap();
    std::fs::read_to_string(etc.join("ca.pem")).unwrap()
}

fn certificate(folder: &Path, name: &str, subject: &str, more: &[&str]) {
    let (key, file) = (format!("{name}.key"), format!("{name}.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "30",
        "-subj",
        &format!("/{subject}"),
    ]);
    let said =
        openssl.args(["-keyout", &key, "-out", &file]).args(more).current_dir(folder).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
