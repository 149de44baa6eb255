//! Writes `fleet.toml` of a lab: nodes with agents, or with their AMI's address.
use crate::pbx::AmiUser;
use crate::{Carrier, Hardening, Pbx, Plan, Reach, Subnet, hardened, plan::TrunkPlan};
use std::fmt::Write as _;

/// The region of the `at`-th PBX: they take turns.
const REGIONS: [&str; 2] = ["eu-east", "eu-west"];

/// The whole file: carriers, nodes with their AMI, trunks, one route for every number.
pub(crate) fn write(plan: &Plan, subnet: Subnet, pbxes: &[Pbx], carriers: &[Carrier]) -> String {
    let mut text = String::from("# Written by the lab.\n");
    let of_trunks = [plan.trunk_cps_max, plan.trunk_channels_max].map(|max| max * u32::from(plan.pbxes));
    let (cps_max, channels_max) = plan.account.unwrap_or(of_trunks.into());
    for carrier in carriers {
        write!(
            text,
            "\n[[carrier]]\nname = \"{}\"\nsignalling = [\"{}/32\", \"{}/32\"]\nmedia = [\"{}/32\", \"{}/32\"]\n\
             cps_max = {cps_max}\nchannels_max = {channels_max}\n",
            carrier.name(),
            carrier.address(),
            carrier.second_address(),
            carrier.address(),
            carrier.second_address(),
        )
        .ok();
    }
    for (at, pbx) in pbxes.iter().enumerate() {
        let region = REGIONS[at % REGIONS.len()];
        write!(text, "\n[[node]]\nname = \"{}\"\nregion = \"{region}\"\n", pbx.name()).ok();
        if plan.reach == Reach::Agent {
            continue;
        }
        writeln!(text, "audio_folder = \"{}\"", pbx.host().sounds().display()).ok();
        write!(
            text,
            "\n[node.ami]\naddress = \"{}\"\nusername = \"{}\"\n\
             secret_file = \"{}\"\ntls = false\nsecurity = {{ username = \"{}\", secret_file = \"{}\" }}\n",
            pbx.ami_address(),
            AmiUser::Calls.username(),
            pbx.secret_file().display(),
            AmiUser::Security.username(),
            pbx.secret_file_of(AmiUser::Security).display(),
        )
        .ok();
    }
    let trunks = plan.trunk_plans(subnet);
    for trunk in &trunks {
        write!(
            text,
            "\n[[trunk]]\nname = \"{}\"\nnode = \"{}\"\ncarrier = \"{}\"\nendpoint = \"{}\"\n\
             number_format = \"e164_plus\"\ncaller_ids = []\ncaller_id_in = \"from\"\nearly_media = \"maybe\"\n\
             cps_max = {}\nchannels_max = {}\nweight = 1\n",
            trunk.name, trunk.node, trunk.carrier, trunk.endpoint, plan.trunk_cps_max, plan.trunk_channels_max,
        )
        .ok();
    }
    if plan.hardening != Hardening::Off {
        let operator = hardened::operator(subnet).address;
        write!(text, "\n[[management]]\nname = \"operator\"\nnetworks = [\"{operator}/32\"]\n").ok();
    }
    let literal = |trunk: &&TrunkPlan| !trunk.name.starts_with("srv-");
    let tier: Vec<String> =
        trunks.iter().filter(literal).map(|trunk| format!("\"{}\"", trunk.name)).collect();
    write!(text, "\n[[route]]\nprefix = \"+\"\ntiers = [[{}]]\n", tier.join(", ")).ok();
    text
}
