//! Domains, names and records by the MAAS API, and what the region's DNS server then says.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use serde_json::json;

use super::Region;

async fn resolve(server: SocketAddr, name: &str, rtype: RecordType) -> (ResponseCode, Vec<String>) {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    let packet = message.to_vec().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.send_to(&packet, server).unwrap();
        let mut answer = [0; 2_048];
        let len = client.recv(&mut answer).unwrap();
        Message::from_vec(&answer[..len]).unwrap()
    });
    let answer = asked.await.unwrap();
    (answer.metadata.response_code, answer.answers.iter().map(|r| r.data.to_string()).collect())
}

/// Asks until the answer is `wanted`: changes are given out a moment after they were made.
async fn says(r: &Region, name: &str, rtype: RecordType, wanted: &[&str]) {
    let mut last = (ResponseCode::NoError, Vec::new());
    for _ in 0..400 {
        last = resolve(r.dns(), name, rtype).await;
        if last.1 == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is {last:?}, not {wanted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_are_made_changed_and_deleted() {
    let r = Region::start().await;
    let all = r.get("domains/").await.json(200);
    let main = &all[0];
    for key in ["id", "name", "ttl", "authoritative", "resource_record_count", "is_default", "resource_uri"] {
        assert!(main.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(
        (main["id"].as_i64(), main["name"].as_str(), main["is_default"].as_bool()),
        (Some(0), Some("maas"), Some(true))
    );
    let made = r.call("POST", "domains/", &[("name", "Lab.example"), ("ttl", "60")]).await.json(200);
    assert_eq!(
        (made["name"].as_str(), made["ttl"].as_i64(), made["id"].as_i64()),
        (Some("lab.example"), Some(60), Some(1))
    );
    says(&r, "lab.example.", RecordType::NS, &["maas."]).await;
    for (name, why) in [
        ("lab.example", "another domain"),
        ("a_b", "domain name"),
        ("x.maas-internal", "internal domain"),
        ("maas-internal", "internal domain"),
    ] {
        r.call("POST", "domains/", &[("name", name)]).await.is(400, why);
    }
    r.call("POST", "domains/", &[]).await.is(400, "required");
    r.call("PUT", "domains/1/", &[("ttl", "0")]).await.is(400, "between 1 and");
    let other = r
        .call("PUT", "domains/1/", &[("authoritative", "false"), ("forward_dns_servers", "10.0.0.53 10.0.0.54")])
        .await;
    assert_eq!(other.json(200)["forward_dns_servers"], json!(["10.0.0.53", "10.0.0.54"]));
    r.call("POST", "domains/1/op-set_default", &[]).await.is(400, "not authoritative");
    r.call("PUT", "domains/1/", &[("authoritative", "true"), ("forward_dns_servers", "")]).await.json(200);
    assert_eq!(r.call("POST", "domains/lab.example/?op=set_default", &[]).await.json(200)["is_default"], true);
    r.call("DELETE", "domains/1/", &[]).await.is(400, "default domain");
    r.call("POST", "domains/0/?op=set_default", &[]).await.json(200);
    r.call("POST", "domains/?op=set_serial", &[("serial", "70000")]).await.is(200, "OK");
    r.call("POST", "domains/?op=set_serial", &[("serial", "5")]).await.is(400, "present serial");
    r.machine("fox", "52:54:00:77:00:01").await;
    r.call("PUT", "domains/0/", &[("name", "site")]).await.is(400, "1 machines are in domain maas");
    assert_eq!(r.call("DELETE", "domains/1/", &[]).await.status.as_u16(), 204);
    r.get("domains/1/").await.is(404, "No Domain");
    r.call("POST", "maas/?op=set_config", &[("name", "maas_internal_domain"), ("value", "maas")])
        .await
        .is(400, "would hide");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_records_reach_the_server() {
    let r = Region::start().await;
    let form = [("name", "www"), ("domain", "maas"), ("ip_addresses", "10.77.0.80 fd00::80"), ("address_ttl", "45")];
    let made = r.call("POST", "dnsresources/", &form).await.json(200);
    for key in ["id", "fqdn", "address_ttl", "ip_addresses", "resource_records", "resource_uri"] {
        assert!(made.get(key).is_some(), "{key} is missing");
    }
    assert_eq!((made["fqdn"].as_str(), made["ip_addresses"][0]["ip"].as_str()), (Some("www.maas"), Some("10.77.0.80")));
    says(&r, "www.maas.", RecordType::A, &["10.77.0.80"]).await;
    says(&r, "www.maas.", RecordType::AAAA, &["fd00::80"]).await;
    let path = format!("dnsresources/{}/", made["id"]);
    r.call("PUT", &path, &[("ip_addresses", "10.77.0.81")]).await.json(200);
    says(&r, "www.maas.", RecordType::A, &["10.77.0.81"]).await;
    for (form, why) in [
        (vec![("name", "*"), ("domain", "maas")], "wildcard"),
        (vec![("name", "www"), ("domain", "maas")], "already"),
        (vec![("name", "x"), ("domain", "nowhere")], "domain"),
        (vec![("name", "x")], "domain"),
        (vec![("fqdn", "x.nowhere.example")], "domains/"),
        (vec![("name", "x"), ("domain", "maas"), ("ip_addresses", "10.0.0")], "IP address"),
    ] {
        r.call("POST", "dnsresources/", &form).await.is(400, why);
    }
    let form = [("fqdn", "mail.maas"), ("rrtype", "mx"), ("rrdata", "10 www.maas")];
    let record = r.call("POST", "dnsresourcerecords/", &form).await.json(200);
    assert_eq!((record["fqdn"].as_str(), record["rrtype"].as_str()), (Some("mail.maas"), Some("MX")));
    says(&r, "mail.maas.", RecordType::MX, &["10 www.maas."]).await;
    for (rrtype, rrdata, why) in [
        ("CNAME", "www.maas", "alone"),
        ("MX", "mail", "rrdata"),
        ("A", "10.0.0.1", "rrtype"),
        ("LOC", "x", "rrtype"),
        ("MX", "10 www.maas", "already"),
    ] {
        r.call("POST", "dnsresourcerecords/", &[("fqdn", "mail.maas"), ("rrtype", rrtype), ("rrdata", rrdata)])
            .await
            .is(400, why);
    }
    assert_eq!(
        r.get("dnsresources/?fqdn=mail.maas").await.json(200)[0]["resource_records"][0]["rrdata"],
        "10 www.maas"
    );
    assert_eq!(r.get("dnsresourcerecords/?rrtype=TXT").await.json(200), json!([]));
    assert_eq!(r.get("domains/0/").await.json(200)["resource_record_count"], 2);
    let path = format!("dnsresourcerecords/{}/", record["id"]);
    assert_eq!(r.call("PUT", &path, &[("rrdata", "20 www.maas")]).await.json(200)["rrdata"], "20 www.maas");
    says(&r, "mail.maas.", RecordType::MX, &["20 www.maas."]).await;
    assert_eq!(r.call("DELETE", &path, &[]).await.status.as_u16(), 204);
    says(&r, "mail.maas.", RecordType::MX, &[]).await;
    r.get(&path).await.is(404, "No DNSData");
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_and_reservations_have_names_both_ways() {
    let r = Region::start().await;
    r.call("POST", "domains/", &[("name", "lab")]).await.json(200);
    r.call("POST", "subnets/", &[("cidr", "10.77.0.0/24")]).await.json(200);
    r.machine("fox", "52:54:00:77:00:01").await;
    r.call("POST", "reservedips/", &[("ip", "10.77.0.20"), ("mac_address", "52:54:00:77:00:01")]).await.json(200);
    says(&r, "fox.maas.", RecordType::A, &["10.77.0.20"]).await;
    says(&r, "20.0.77.10.in-addr.arpa.", RecordType::PTR, &["fox.maas."]).await;
    let form = [("ip", "10.77.0.21"), ("mac_address", "52:54:00:77:00:02"), ("hostname", "printer")];
    let kept = r.call("POST", "reservedips/", &form).await.json(200);
    says(&r, "printer.maas.", RecordType::A, &["10.77.0.21"]).await;
    let form = [("type", "dynamic"), ("start_ip", "10.77.0.100"), ("end_ip", "10.77.0.110"), ("subnet", "1")];
    r.call("POST", "ipranges/", &form).await.json(200);
    says(&r, "10-77-0-105.maas.", RecordType::A, &["10.77.0.105"]).await;
    let id = r.get("machines/").await.json(200)[0]["system_id"].as_str().unwrap().to_owned();
    r.call("PUT", &format!("machines/{id}/"), &[("domain", "nowhere")]).await.is(400, "domain");
    let moved = r.call("PUT", &format!("machines/{id}/"), &[("domain", "lab"), ("hostname", "vixen")]).await.json(200);
    assert_eq!((moved["fqdn"].as_str(), moved["domain"]["name"].as_str()), (Some("vixen.lab"), Some("lab")));
    says(&r, "vixen.lab.", RecordType::A, &["10.77.0.20"]).await;
    says(&r, "20.0.77.10.in-addr.arpa.", RecordType::PTR, &["vixen.lab."]).await;
    says(&r, "fox.maas.", RecordType::A, &[]).await;
    r.call("DELETE", &format!("reservedips/{}/", kept["id"]), &[]).await;
    says(&r, "printer.maas.", RecordType::A, &[]).await;
    assert_eq!(resolve(r.dns(), "example.com.", RecordType::A).await.0, ResponseCode::Refused);
    assert_eq!(resolve(r.dns(), "none.maas.", RecordType::A).await.0, ResponseCode::NXDomain);
    r.stop().await;
}
