//! Bodies as clients send them, and as nobody should: every answer is an answer, and the region goes on.

use proptest::prelude::*;

use super::Region;

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_of_a_machine_makes_it() {
    let r = Region::start().await;
    let multipart = |mac: &str, base64: bool| {
        use base64::Engine;
        let mut body = String::new();
        let fields =
            [("architecture", "amd64"), ("power_type", "manual"), ("commission", "False"), ("mac_addresses", mac)];
        for (name, value) in fields {
            let (head, value) = if base64 {
                let packed = base64::engine::general_purpose::STANDARD.encode(value);
                (
                    "Content-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: base64\r\n",
                    format!("{packed}\n"),
                )
            } else {
                ("", value.to_owned())
            };
            body.push_str(&format!(
                "--=====x==\r\n{head}Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        body + "--=====x==--"
    };
    let kind = "multipart/form-data; boundary=\"=====x==\"";
    let json =
        r#"{"architecture":"amd64","power_type":"manual","commission":false,"mac_addresses":["52:54:00:00:00:03"]}"#;
    let form = "architecture=amd64&power_type=manual&commission=0&mac_addresses=52%3A54%3A00%3A00%3A00%3A04";
    for (kind, body) in [
        (kind, multipart("52:54:00:00:00:01", true)),
        (kind, multipart("52:54:00:00:00:02", false)),
        ("application/json", json.to_owned()),
        ("application/x-www-form-urlencoded", form.to_owned()),
    ] {
        let request = r.request("POST", "machines/").header("content-type", kind).body(body);
        assert_eq!(r.send(request, Some(&r.key)).await.json(200)["status_name"], "New", "{kind}");
    }
    assert_eq!(r.get("machines/").await.json(200).as_array().unwrap().len(), 4);
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_get_one_clear_answer() {
    let r = Region::start().await;
    for (kind, body, part) in [
        ("application/json", "{", "not JSON"),
        ("application/json", "[1]", "not an object"),
        ("multipart/form-data", "x", "names no boundary"),
        ("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", "multipart"),
        ("text/xml", "<a/>", "text/xml"),
    ] {
        let request = r.request("POST", "machines/").header("content-type", kind).body(body);
        r.send(request, Some(&r.key)).await.is(400, part);
    }
    let long = vec![b'a'; region::api::params::BODY_LIMIT + 1];
    let request = r.request("POST", "machines/").header("content-type", "application/x-www-form-urlencoded").body(long);
    // The answer may come, and the connection close, before all of it was sent.
    if let Ok(answer) = request.header("authorization", r.key.header()).send().await {
        assert_eq!(answer.status().as_u16(), 413);
    }
    let request = r.request("GET", "machines/").header("authorization", "OAuth oauth_signature_method=PLAINTEXT,oauth_consumer_key=c,oauth_token=t,oauth_signature=%26s,oauth_nonce=n,oauth_timestamp=soon");
    r.send(request, None).await.is(400, "soon");
    r.stop().await;
}

#[test]
fn malformed_multipart_never_stops_the_api() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let r = runtime.block_on(Region::start());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    let pieces = prop_oneof![
        Just("--b\r\n".to_owned()),
        Just("--b--".to_owned()),
        Just("\r\n\r\n".to_owned()),
        Just("--b".to_owned()),
        Just("Content-Disposition: form-data; name=\"mac_addresses\"\r\n".to_owned()),
        Just("Content-Transfer-Encoding: base64\r\n".to_owned()),
        "\\PC{0,12}",
    ];
    let bodies = proptest::collection::vec(pieces, 0..9).prop_map(|p| p.concat());
    let result = runner.run(&bodies, |body| {
        let request =
            r.request("POST", "machines/").header("content-type", "multipart/form-data; boundary=b").body(body);
        let said = runtime.block_on(r.send(request, Some(&r.key)));
        prop_assert!(said.status.as_u16() == 400, "{said:?}");
        Ok(())
    });
    result.unwrap();
    runtime.block_on(async { r.get("machines/").await.json(200) });
    runtime.block_on(r.stop());
}
