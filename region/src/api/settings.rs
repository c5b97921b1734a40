//! `maas/`: the region's settings by MAAS's names. Values are JSON; what was never set has the default that stands here.

use actix_web::HttpResponse;
use schema::catalogue::{Catalogue, CatalogueItem};
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, text},
    domains,
    fault::Fault,
};
use crate::settings;

/// The settings that are known, with MAAS's types: the default is an example of it. A null is a text that is not set.
fn defaults() -> Value {
    json!({
        "maas_name": "hostler", "kernel_opts": null, "default_osystem": "debian", "default_distro_series": "bookworm",
        "commissioning_distro_series": "bookworm", "default_min_hwe_kernel": "", "main_archive": null, "ports_archive": null,
        "maas_internal_domain": "maas-internal", "upstream_dns": null, "dns_trusted_acl": null, "dnssec_validation": "auto",
        "enable_http_proxy": true, "http_proxy": null, "use_peer_proxy": false,
        "ntp_servers": null, "ntp_external_only": false, "remote_syslog": null, "network_discovery": "disabled", "active_discovery_interval": 0,
        "default_storage_layout": "flat", "enable_disk_erasing_on_release": false, "curtin_verbose": true,
        "enable_third_party_drivers": false, "windows_kms_host": null, "boot_images_auto_import": false,
        "node_timeout": 30, "default_dns_ttl": 30, "completed_intro": true,
    })
}

/// `maas/`.
pub async fn maas(call: Call) -> Answer {
    match call.wants() {
        ("GET", "get_config") => {
            call.user()?;
            let value = value(&call.house.catalogue(), call.params.required("name")?)?;
            // MAAS sends this one without a charset.
            Ok(HttpResponse::Ok().content_type("application/json").body(value.to_string()))
        }
        ("POST", "set_config") => {
            let by = call.admin()?.username.clone();
            let name = call.params.required("name")?.to_owned();
            let value = typed(&name, call.params.get("value").unwrap_or_default())?;
            settings::check(&name, value.as_str().unwrap_or_default())
                .map_err(|wrong| Fault::field("value", wrong.to_string()))?;
            let item = CatalogueItem::Setting { name, value: value.to_string() };
            domains::admitted(&call.house.catalogue(), &item)?;
            call.house.put(&by, vec![item]).await?;
            Ok(text("OK"))
        }
        _ => Err(call.unknown()),
    }
}

fn known(name: &str) -> Result<Value, Fault> {
    let defaults = defaults();
    let names = || defaults.as_object().map(|d| d.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
    let none =
        || Fault::field("name", format!("\"{name}\" is not a setting that is known here; known are: {}.", names()));
    defaults.get(name).cloned().ok_or_else(none)
}

fn value(c: &Catalogue, name: &str) -> Result<Value, Fault> {
    let default = known(name)?;
    Ok(c.settings.get(name).and_then(|v| serde_json::from_str(v).ok()).unwrap_or(default))
}

/// A form's text in the setting's type.
fn typed(name: &str, text: &str) -> Result<Value, Fault> {
    let wrong = |what: &str| Fault::field("value", format!("\"{text}\" is not {what}, which setting {name} takes."));
    match known(name)? {
        Value::Bool(_) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(json!(true)),
            "false" | "0" | "off" | "no" => Ok(json!(false)),
            _ => Err(wrong("true or false")),
        },
        Value::Number(_) => text.trim().parse::<u32>().map(|n| json!(n)).map_err(|_| wrong("a whole number")),
        _ if text.chars().any(char::is_control) => Err(wrong("one line of text")),
        _ => Ok(json!(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_their_types() {
        assert_eq!(typed("kernel_opts", "console=ttyS0 quiet").unwrap(), json!("console=ttyS0 quiet"));
        assert_eq!(typed("node_timeout", "5").unwrap(), json!(5));
        assert_eq!(typed("completed_intro", "True").unwrap(), json!(true));
        assert!(
            typed("node_timeout", "soon").is_err() && typed("x", "y").is_err() && typed("kernel_opts", "a\nb").is_err()
        );
        assert_eq!(value(&Catalogue::default(), "node_timeout").unwrap(), json!(30));
    }
}
