//! Signatures after Standard Webhooks: HMAC-SHA256 of `id.timestamp.body`, one for each secret that is valid.

use data_encoding::BASE64;
use ring::hmac;
use time::OffsetDateTime;

use super::sealing::{Opened, OpenedSecrets};

/// What every secret begins with, as its owner gets it.
const PREFIX: &str = "whsec_";

/// A secret as its owner gets it.
pub(crate) fn shown(secret: &Opened) -> String {
    format!("{PREFIX}{}", BASE64.encode(&secret.0))
}

/// The value of `webhook-signature`.
pub(super) fn signature(secrets: &OpenedSecrets, id: &str, at: OffsetDateTime, body: &[u8]) -> String {
    let previous = secrets.previous.iter().filter(|(_, until)| at < *until).map(|(secret, _)| secret);
    let signed = std::iter::once(&secrets.current).chain(previous).map(|secret| {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0));
        mac.update(format!("{id}.{}.", at.unix_timestamp()).as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.sign().as_ref()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn the_known_example_is_signed_as_it_should_be() {
        let secret = Opened(BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let at = OffsetDateTime::from_unix_timestamp(1_614_265_330).unwrap();
        let secrets = OpenedSecrets { current: secret, previous: None };
        let signed = signature(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(shown(&secrets.current), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn a_former_secret_signs_until_its_time_is_over() {
        let until = datetime!(2026-11-24 12:00 UTC);
        let secrets =
            OpenedSecrets { current: Opened(vec![1; 32]), previous: Some((Opened(vec![2; 32]), until)) };
        let both = signature(&secrets, "evt", until - Duration::SECOND, b"{}");
        assert_eq!(both.split(' ').count(), 2);
        assert_eq!(signature(&secrets, "evt", until, b"{}").split(' ').count(), 1);
    }
}
