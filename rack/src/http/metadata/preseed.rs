//! The texts that cloud-init is configured by: preseed and vendor-data (cloud-config, written as YAML with JSON's quoting).

use schema::plan::{Ticket, TicketBoot};
use serde_json::json;

use super::PREFIX;
use crate::syslog;

/// The cloud-config behind `cloud-config-url`: where the metadata is, the node's key, where events go, and the end of the machine's session.
/// Holds the key: it goes to nobody but the machine. `proxy`: where packages are fetched through.
pub(super) fn preseed(ticket: &Ticket, boot: &TicketBoot, host: &str, proxy: Option<&str>) -> String {
    let base = format!("http://{host}{PREFIX}");
    let quote = |text: &str| json!(text).to_string();
    let key = [
        ("consumer_key", quote(&boot.key.consumer_key)),
        ("token_key", quote(&boot.key.token_key)),
        ("token_secret", quote(boot.key.token_secret.expose())),
    ]
    .map(|(name, value)| format!("    {name}: {value}\n"))
    .concat();
    let metadata_url = quote(&format!("{base}/"));
    let endpoint = quote(&format!("{base}/status/{}", ticket.machine));
    let proxy = proxy.map(|url| format!("  proxy: {}\n", quote(url))).unwrap_or_default();
    // cloud-init only writes rsyslog's configuration: an image without rsyslog stays as it is.
    let logs = quote(&format!("{}:{}", host.rsplit_once(':').map_or(host, |(name, _)| name), syslog::PORT));
    let mut text = format!(
        "#cloud-config\n\
         datasource:\n  MAAS:\n    metadata_url: {metadata_url}\n{key}\
         reporting:\n  maas:\n    type: webhook\n    endpoint: {endpoint}\n{key}\
         rsyslog:\n  remotes:\n    maas: {logs}\n\
         manage_etc_hosts: true\n\
         apt:\n  preserve_sources_list: true\n{proxy}\
         package_update: false\n\
         package_upgrade: false\n\
         locale: false\n\
         ssh_genkeytypes: [ed25519]\n"
    );
    if !boot.stay_on {
        text.push_str("power_state:\n  delay: now\n  mode: poweroff\n  timeout: 3600\n");
    }
    text
}

/// The vendor-data: a map with one cloud-config, as cloud-init's MAAS source wants it.
pub(super) fn vendor_data() -> String {
    // Nothing that would install a package: the ephemeral image carries what is needed.
    let config = "#cloud-config\nruncmd:\n- [rm, -rf, /run/netplan]\n";
    json!({ "cloud-init": config }).to_string()
}
