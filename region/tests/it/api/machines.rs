//! Machines by the MAAS API: making, reading, changing, deleting, operating, and what is said when it cannot be.

use serde_json::{Value, json};

use super::Region;

/// A5's keys of a machine.
const KEYS: &str = "system_id hostname fqdn description hardware_uuid domain zone pool owner owner_data workload_annotations \
    locked parent architecture bios_boot_method min_hwe_kernel hwe_kernel cpu_count cpu_speed memory swap_size storage status \
    status_name status_message status_action error_description osystem distro_series ephemeral_deploy netboot node_type \
    node_type_name power_type power_state tag_names address_ttl ip_addresses boot_interface interface_set boot_disk \
    blockdevice_set physicalblockdevice_set virtualblockdevice_set special_filesystems raids volume_groups bcaches cache_sets \
    default_gateways hardware_info numanode_set disable_ipv4 current_commissioning_result_id current_testing_result_id \
    current_installation_result_id commissioning_status commissioning_status_name testing_status testing_status_name \
    cpu_test_status cpu_test_status_name memory_test_status memory_test_status_name network_test_status \
    network_test_status_name storage_test_status storage_test_status_name interface_test_status interface_test_status_name \
    other_test_status other_test_status_name enable_hw_sync enable_kernel_crash_dump is_dpu last_sync sync_interval next_sync \
    resource_uri";

/// Keys that strict clients take for a string, a number or a truth value and never for null.
const NEVER_NULL: &str = "system_id hostname fqdn description architecture cpu_count memory storage status status_name \
    status_message osystem distro_series netboot locked power_type power_state tag_names ip_addresses owner_data domain zone pool \
    interface_set blockdevice_set physicalblockdevice_set hardware_info resource_uri";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_has_every_key_that_clients_expect() {
    let r = Region::start().await;
    let made = r.machine("fox", "52:54:00:77:00:01").await;
    for key in KEYS.split_whitespace() {
        assert!(made.get(key).is_some(), "{key} is missing");
    }
    for key in NEVER_NULL.split_whitespace() {
        assert!(!made[key].is_null(), "{key} is null");
    }
    for (object, keys) in [
        ("/domain", "id name ttl authoritative resource_record_count is_default resource_uri"),
        ("/zone", "id name description resource_uri"),
        ("/pool", "id name description resource_uri"),
        ("/hardware_info", "system_vendor cpu_model mainboard_firmware_version chassis_version"),
        (
            "/boot_interface",
            "id system_id name type enabled mac_address vlan links tags parents children params discovered \
            effective_mtu vendor product firmware_version link_connected interface_speed link_speed numa_node sriov_max_vf resource_uri",
        ),
    ] {
        for key in keys.split_whitespace() {
            assert!(made.pointer(object).unwrap().get(key).is_some(), "{object}/{key} is missing");
        }
    }
    assert!(made["storage"].is_f64() && made["memory"].is_u64());
    assert_eq!(made["status_name"], "New");
    assert_eq!(made["architecture"], "amd64/generic");
    let id = made["system_id"].as_str().unwrap();
    assert_eq!(made["resource_uri"], format!("/MAAS/api/2.0/machines/{id}/"));
    let read = r.get(&format!("machines/{id}/")).await;
    assert_eq!(read.kind, "application/json; charset=utf-8");
    assert_eq!(read.json(200), made);
    for path in [format!("machines/{id}"), format!("nodes/{id}/")] {
        assert_eq!(r.get(&path).await.json(200)["system_id"], id);
    }
    assert_eq!(r.get("machines/").await.json(200), json!([made]));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_and_bad_ones_are_400() {
    let r = Region::start().await;
    r.machine("fox", "52:54:00:77:00:01").await;
    let owl = r.machine("owl", "52:54:00:77:00:02").await;
    let id = owl["system_id"].as_str().unwrap();
    for (query, names) in [
        ("", vec!["fox", "owl"]),
        ("?hostname=fox", vec!["fox"]),
        ("?hostname=fox.maas&hostname=owl", vec!["fox", "owl"]),
        ("?mac_address=52:54:00:77:00:02", vec!["owl"]),
        (&format!("?id={id}"), vec!["owl"]),
        ("?id=nobody", vec![]),
        ("?status=new&arch=amd64", vec!["fox", "owl"]),
        ("?status=ready", vec![]),
        ("?zone=default&pool=default&domain=maas", vec!["fox", "owl"]),
        ("?zone=elsewhere", vec![]),
        ("?not_hostname=fox", vec!["owl"]),
        ("?cpu_count=1", vec![]),
    ] {
        let found = r.get(&format!("machines/{query}")).await.json(200);
        let found: Vec<_> = found.as_array().unwrap().iter().map(|m| m["hostname"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{query}");
    }
    for query in ["mac_address=x", "status=sleepy", "cpu_count=many"] {
        assert_eq!(r.get(&format!("machines/?{query}")).await.status.as_u16(), 400, "{query}");
    }
    assert_eq!(r.get("machines/?op=is_registered&mac_address=52:54:00:77:00:01").await.json(200), json!(true));
    assert_eq!(r.get("machines/?op=is_registered&mac_address=52:54:00:77:00:09").await.json(200), json!(false));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_all_named_at_once() {
    let r = Region::start().await;
    r.machine("fox", "52:54:00:77:00:01").await;
    let nothing = r.call("POST", "machines/?op=", &[]).await;
    assert_eq!(nothing.kind, "application/json; charset=utf-8");
    let fields = nothing.json(400);
    let names: Vec<_> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["architecture", "mac_addresses", "power_type"]);
    let form = [
        ("hostname", "fox"),
        ("architecture", "z80"),
        ("mac_addresses", "52:54:00:77:00:01"),
        ("mac_addresses", "nonsense"),
        ("power_type", "ipmi"),
        ("domain", "mars"),
        ("commission", "perhaps"),
    ];
    let fields = r.call("POST", "machines/", &form).await.json(400);
    for name in ["hostname", "architecture", "mac_addresses", "power_parameters_power_address", "domain", "commission"]
    {
        assert!(fields[name].is_array(), "{name}: {fields}");
    }
    assert!(fields["mac_addresses"].to_string().contains("already in use"), "{fields}");
    r.call("POST", "machines/", &[("power_type", "steam")]).await.is(400, "use one of manual, ipmi");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_changes_and_goes() {
    let r = Region::start().await;
    let form = [
        ("architecture", "amd64/generic"),
        ("mac_addresses", "52:54:00:77:00:03"),
        ("power_type", "ipmi"),
        ("power_parameters", r#"{"power_address":"127.0.0.9","power_user":"u","power_pass":"canary-pass"}"#),
        ("commission", "false"),
    ];
    let made = r.call("POST", "machines/", &form).await.json(200);
    assert!(made["hostname"].as_str().unwrap().contains('-'), "a name is made up: {}", made["hostname"]);
    assert!(!made.to_string().contains("canary-pass"));
    let path = format!("machines/{}/", made["system_id"].as_str().unwrap());
    let power = r.get(&format!("{path}?op=power_parameters")).await.json(200);
    assert_eq!(power, json!({"power_address": "127.0.0.9", "power_user": "u", "power_pass": "canary-pass"}));
    let form = [("hostname", "owl"), ("description", "second rack"), ("power_parameters_power_user", "v")];
    let changed = r.call("PUT", &path, &form).await.json(200);
    assert_eq!((changed["hostname"].as_str(), changed["description"].as_str()), (Some("owl"), Some("second rack")));
    assert!(changed["resource_uri"].is_string());
    let power = r.get(&format!("{path}?op=power_parameters")).await.json(200);
    assert_eq!((power["power_user"].as_str(), power["power_pass"].as_str()), (Some("v"), Some("canary-pass")));
    let id = made["system_id"].as_str().unwrap();
    let seen =
        [format!("/inspect/v1/actors/machine/{id}"), format!("/inspect/v1/explain/{id}"), "events/?op=query".into()];
    for path in seen {
        let said = r.get(&path).await;
        assert!(said.status.is_success() && !said.text.contains("canary-pass"), "{path}: {}", said.text);
    }
    let deleted = r.call("DELETE", &path, &[]).await;
    assert_eq!((deleted.status.as_u16(), deleted.kind.as_str(), deleted.text.as_str()), (204, "text/plain", ""));
    r.get(&path).await.is(404, "No Machine matches the given query.");
    r.call("DELETE", &path, &[]).await.is(404, "");
    r.get("machines/??/").await;
    r.get("machines/not-an-id/").await.is(404, "No Machine");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_now_is_409_with_the_way_out() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let path = format!("machines/{}/", fox["system_id"].as_str().unwrap());
    let ops = ["commission", "abort", "mark_fixed", "deploy", "release", "lock", "rescue_mode", "power_on", "test"];
    for op in ops {
        let said = r.call("POST", &format!("{path}?op={op}"), &[]).await;
        assert_eq!(
            (said.status.as_u16(), said.kind.as_str()),
            (409, "text/plain; charset=utf-8"),
            "{op}: {}",
            said.text
        );
        assert!(!said.headers.contains_key("retry-after"), "{op}");
        assert!(said.text.ends_with('.') && !said.text.contains('\n'), "{op}: {}", said.text);
    }
    r.call("POST", &format!("{path}?op=commission"), &[]).await.is(409, "rack");
    r.call("POST", &format!("{path}op-abort"), &[]).await.is(409, "");
    r.call("POST", &path, &[("op", "abort")]).await.is(409, "");
    r.call("POST", &format!("{path}?op=fly"), &[]).await.is(400, "Unrecognised signature: method=POST op=fly");
    r.call("POST", "machines/?op=allocate", &[]).await.is(409, "later");
    assert_eq!(r.get(&format!("{path}?op=query_power_state")).await.json(200), json!({"state": "unknown"}));
    let broken = r.call("POST", &format!("{path}?op=mark_broken"), &[("comment", "smoke")]).await.json(200);
    assert_eq!((broken["status"].as_i64(), broken["error_description"].as_str()), (Some(8), Some("smoke")));
    let fixed = r.call("POST", &format!("{path}?op=mark_fixed"), &[]).await.json(200);
    assert_eq!(fixed["status_name"], "Ready");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_results_and_explanation_are_told() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[("comment", "smoke")]).await.json(200);
    let page = r.get("events/?op=query&hostname=fox&limit=1").await.json(200);
    assert_eq!(page["count"], 1);
    let event = &page["events"][0];
    assert_eq!((event["hostname"].as_str(), event["username"].as_str()), (Some("fox"), Some("admin")));
    assert!(event["created"].as_str().unwrap().contains(". 2"), "{event}");
    let older = page["prev_uri"].as_str().unwrap().trim_start_matches("/MAAS/api/2.0/").to_owned();
    assert_eq!(r.get(&older).await.json(200)["events"][0]["type"], "NODE_CREATED");
    r.get("events/?op=query&limit=1001").await.is(400, "1000");
    r.get("events/?op=query&before=1&after=2").await.is(400, "both");
    r.get("events/?op=query&level=LOUD").await.is(400, "LOUD");
    assert_eq!(r.get(&format!("nodes/{id}/results/")).await.json(200), json!([]));
    r.get(&format!("nodes/{id}/results/current-commissioning/")).await.is(404, "No ScriptSet");
    assert_eq!(r.get(&format!("nodes/{id}/interfaces/")).await.json(200).as_array().unwrap().len(), 1);
    assert_eq!(r.get(&format!("nodes/{id}/blockdevices/")).await.json(200), json!([]));
    for path in [format!("machines/{id}/?op=explain"), format!("/inspect/v1/explain/{id}")] {
        let told = r.get(&path).await.json(200);
        assert_eq!((told["hostname"].as_str(), told["waiting"].as_bool()), (Some("fox"), Some(false)));
        assert!(told["text"].as_str().unwrap().contains("smoke"), "{told}");
    }
    let missing = r.get("/inspect/v1/explain/aaaaaa").await;
    assert_eq!(missing.kind, "application/problem+json");
    assert_eq!(missing.json(404)["status"], 404);
    let actors = r.get("/inspect/v1/actors?kind=machine").await.json(200);
    assert_eq!(actors["items"][0]["id"], id);
    let actor: Value = r.get(&format!("/inspect/v1/actors/machine/{id}")).await.json(200);
    assert!(!actor["messages"].as_array().unwrap().is_empty(), "{actor}");
    r.stop().await;
}
