//! Fake PBXes that answer every call.

use fake_pbx::{FakePbx, Script};

/// The endpoint that each of them has.
const ENDPOINT: &str = "carrier";

pub(crate) async fn run(count: usize) -> anyhow::Result<()> {
    let mut pbxes = Vec::with_capacity(count);
    for _ in 0..count {
        let pbx = FakePbx::start(Script::default()).await?;
        pbx.set_global(&format!("PJSIP_ENDPOINT({ENDPOINT},aors)"), ENDPOINT);
        pbx.set_global(&format!("PJSIP_AOR({ENDPOINT},contact)"), &format!("{ENDPOINT}@@1"));
        pbx.set_global(&format!("PJSIP_CONTACT({ENDPOINT}@@1,uri)"), "sip:192.0.2.21:5060");
        pbxes.push(pbx);
    }
    let addresses: Vec<_> = pbxes.iter().map(|pbx| pbx.address().to_string()).collect();
    crate::serve_until_left(&addresses).await
}
