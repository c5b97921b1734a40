//! Subnets, VLANs, fabrics, ranges and reserved addresses by the MAAS API.

use serde_json::json;

use super::Region;

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_is_made_found_by_every_name_changed_and_deleted() {
    let r = Region::start().await;
    let form = [("cidr", "10.77.0.0/24"), ("gateway_ip", "10.77.0.1"), ("dns_servers", "10.77.0.2,10.77.0.3")];
    let made = r.call("POST", "subnets/", &form).await.json(200);
    for key in "id name description cidr vlan space gateway_ip dns_servers rdns_mode active_discovery allow_dns allow_proxy managed \
        disabled_boot_architectures resource_uri"
        .split_whitespace()
    {
        assert!(made.get(key).is_some(), "{key} is missing");
    }
    assert_eq!((made["vlan"]["id"].as_i64(), made["vlan"]["name"].as_str()), (Some(5001), Some("untagged")));
    assert_eq!(made["vlan"]["dhcp_on"], false);
    let served = r.call("POST", "subnets/", &[("cidr", "10.79.0.0/24"), ("dhcp_on", "true")]).await;
    served.is(409, "rack");
    assert_eq!(made["dns_servers"], json!(["10.77.0.2", "10.77.0.3"]));
    let id = made["id"].to_string();
    for name in [&id, "10.77.0.0/24", "cidr:10.77.0.0/24", "name:10.77.0.0/24", "10.77.0.0%2F24"] {
        assert_eq!(r.get(&format!("subnets/{name}/")).await.json(200)["id"], made["id"], "{name}");
    }
    let changed = r.call("PUT", "subnets/10.77.0.0/24/", &[("name", "lab"), ("gateway_ip", "")]).await.json(200);
    assert_eq!((changed["name"].as_str(), changed["gateway_ip"].is_null()), (Some("lab"), true));
    r.get("subnets/name:lab/?op=statistics").await.json(200)["total_addresses"].as_u64().filter(|n| *n == 254).unwrap();
    assert_eq!(r.get("subnets/lab/?op=ip_addresses").await.json(200), json!([]));
    for (field, value) in [("cidr", "10.77.0.0/33"), ("cidr", "10.77.0.128/25"), ("cidr", "x")] {
        let fields = r.call("POST", "subnets/", &[(field, value)]).await.json(400);
        assert!(fields["cidr"].is_array(), "{value}: {fields}");
    }
    let fields = r
        .call("PUT", "subnets/lab/", &[("gateway_ip", "10.9.9.9"), ("rdns_mode", "7"), ("managed", "so")])
        .await
        .json(400);
    assert_eq!(fields.as_object().unwrap().len(), 3, "{fields}");
    // A second subnet without a VLAN gets a fabric of its own.
    let second = r.call("POST", "subnets/", &[("cidr", "10.78.0.0/24")]).await.json(200);
    assert_ne!(second["vlan"]["fabric_id"], made["vlan"]["fabric_id"]);
    assert_eq!(r.get("subnets/").await.json(200).as_array().unwrap().len(), 2);
    assert_eq!(r.call("DELETE", "subnets/lab/", &[]).await.status.as_u16(), 204);
    r.get("subnets/lab/").await.is(404, "No Subnet");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_reserved_addresses_keep_to_their_subnet() {
    let r = Region::start().await;
    r.call("POST", "subnets/", &[("cidr", "10.77.0.0/24"), ("gateway_ip", "10.77.0.1")]).await.json(200);
    let form =
        [("type", "dynamic"), ("start_ip", "10.77.0.100"), ("end_ip", "10.77.0.199"), ("subnet", "cidr:10.77.0.0/24")];
    let range = r.call("POST", "ipranges/", &form).await.json(200);
    assert_eq!((range["type"].as_str(), range["user"]["username"].as_str()), (Some("dynamic"), Some("admin")));
    assert_eq!(range["subnet"]["cidr"], "10.77.0.0/24");
    for (start, end) in [
        ("10.77.0.150", "10.77.0.210"),
        ("10.77.0.0", "10.77.0.9"),
        ("10.77.0.9", "10.77.0.8"),
        ("10.78.0.1", "10.78.0.2"),
    ] {
        let form = [("type", "reserved"), ("start_ip", start), ("end_ip", end), ("subnet", "1")];
        assert_eq!(r.call("POST", "ipranges/", &form).await.status.as_u16(), 400, "{start}-{end}");
    }
    let fields = r.call("POST", "ipranges/", &[]).await.json(400);
    for name in ["type", "start_ip", "end_ip", "subnet"] {
        assert!(fields[name].is_array(), "{name}: {fields}");
    }
    let path = format!("ipranges/{}/", range["id"]);
    assert_eq!(r.call("PUT", &path, &[("end_ip", "10.77.0.180")]).await.json(200)["end_ip"], "10.77.0.180");
    let form = [("ip", "10.77.0.20"), ("mac_address", "52:54:00:77:00:01")];
    let reserved = r.call("POST", "reservedips/", &form).await.json(200);
    assert_eq!(reserved["subnet"]["cidr"], "10.77.0.0/24");
    r.call("POST", "reservedips/", &form).await.is(400, "reserved already");
    r.call("POST", "reservedips/", &[("ip", "10.9.0.1")]).await.is(400, "mac_address");
    let free = r.get("subnets/1/?op=unreserved_ip_ranges").await.json(200);
    assert_eq!(free[0]["start"], "10.77.0.2");
    assert_eq!(r.call("DELETE", &format!("reservedips/{}/", reserved["id"]), &[]).await.status.as_u16(), 204);
    assert_eq!(r.call("DELETE", &path, &[]).await.status.as_u16(), 204);
    assert_eq!(r.get("ipranges/").await.json(200), json!([]));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fabrics_and_vlans_are_made_and_changed() {
    let r = Region::start().await;
    let fabric = r.call("POST", "fabrics/", &[("name", "west")]).await.json(200);
    assert_eq!(fabric["vlans"][0]["vid"], 0);
    r.call("POST", "fabrics/", &[("name", "west")]).await.is(400, "name");
    let vlan = r.call("POST", "fabrics/west/vlans/", &[("vid", "20"), ("mtu", "9000")]).await.json(200);
    assert_eq!(
        (vlan["vid"].as_i64(), vlan["mtu"].as_i64(), vlan["fabric"].as_str()),
        (Some(20), Some(9000), Some("west"))
    );
    let id = vlan["id"].to_string();
    assert_eq!(r.get(&format!("vlans/{id}/")).await.json(200), vlan);
    assert_eq!(r.get("fabrics/west/vlans/20/").await.json(200), vlan);
    let fields = r
        .call("PUT", "fabrics/west/vlans/20/", &[("vid", "4095"), ("mtu", "1"), ("primary_rack", "none")])
        .await
        .json(400);
    assert_eq!(fields.as_object().unwrap().len(), 3, "{fields}");
    r.call("POST", "fabrics/west/vlans/", &[("vid", "20")]).await.is(400, "exists");
    r.call("PUT", &format!("vlans/{id}/"), &[("dhcp_on", "on")]).await.is(409, "primary_rack");
    assert_eq!(r.call("PUT", &format!("vlans/{id}/"), &[("name", "blue")]).await.json(200)["name"], "blue");
    r.call("DELETE", &format!("vlans/{}/", fabric["vlans"][0]["id"]), &[]).await.is(400, "default VLAN");
    assert_eq!(r.call("DELETE", &format!("vlans/{id}/"), &[]).await.status.as_u16(), 204);
    assert_eq!(r.call("DELETE", "fabrics/west/", &[]).await.status.as_u16(), 204);
    r.get("fabrics/west/").await.is(404, "No Fabric");
    r.stop().await;
}
