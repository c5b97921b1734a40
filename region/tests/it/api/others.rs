//! Keys, racks, settings, images.

use serde_json::json;

use super::Region;

#[tokio::test(flavor = "multi_thread")]
async fn images_are_uploaded_by_content_and_named() {
    let r = Region::start().await;
    let put = |bytes: &'static [u8], sha256: String| {
        let (r, request) = (&r, r.request("PUT", &format!("/images/bodies/{sha256}")).body(bytes));
        async move { r.send(request, Some(&r.key)).await }
    };
    let sha = |bytes: &[u8]| schema::boot::Sha256::of(bytes).to_string();
    let (kernel, initrd) = (sha(b"kernel"), sha(b"initrd"));
    put(b"kernel", kernel.clone()).await.json(201);
    assert_eq!(put(b"kernel", kernel.clone()).await.json(200)["held"], true);
    put(b"other", initrd.clone()).await.is(400, "remedy");
    r.get(&format!("/images/bodies/{initrd}")).await.is(404, "remedy");
    put(b"initrd", initrd.clone()).await.json(201);
    put(b"x", "zz".into()).await.is(400, "64 hexadecimal digits");
    let form = [("name", "debian/bookworm/amd64/generic"), ("kernel", kernel.as_str()), ("initrd", initrd.as_str())];
    let image = r.call("POST", "/images", &form).await.json(200);
    assert_eq!(
        (image["default"].as_bool(), image["kernel"]["len"].as_u64(), image["squashfs"].is_null()),
        (Some(true), Some(6), true)
    );
    let again = r.call("POST", "/images", &form).await.json(200);
    assert_eq!(again["id"], image["id"], "the same name takes the old one's place");
    let fields =
        r.call("POST", "/images", &[("name", "x"), ("kernel", &sha(b"nowhere"))]).await.json(400)["fields"].clone();
    assert_eq!(fields.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), ["initrd", "kernel", "name"]);
    r.call("POST", "/images/loaders", &[("name", "bootx64.efi"), ("body", &kernel)]).await.json(200);
    r.call("POST", "/images/loaders", &[("name", "../etc/passwd"), ("body", &kernel)]).await.is(400, "boot file name");
    assert_eq!(r.get("/images/loaders").await.json(200)[0]["name"], "bootx64.efi");
    let boot = r.get("boot-resources/").await.json(200);
    assert_eq!((boot[0]["name"].as_str(), boot[0]["kflavor"].as_str()), (Some("debian/bookworm"), Some("generic")));
    assert_eq!(r.call("DELETE", "/images/debian/bookworm/amd64/generic", &[]).await.status.as_u16(), 204);
    assert_eq!(r.get("/images").await.json(200), json!([]));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_tokens_racks_and_settings() {
    let r = Region::start().await;
    let token = r.call("POST", "account/?op=create_authorisation_token", &[("name", "ci")]).await.json(200);
    let part = |name: &str| token[name].as_str().unwrap().to_owned();
    let key = format!("{}:{}:{}", part("consumer_key"), part("token_key"), part("token_secret")).parse().unwrap();
    r.send(r.request("GET", "users/?op=whoami"), Some(&key)).await.json(200);
    let list = r.get("account/?op=list_authorisation_tokens").await;
    assert!(list.text.contains("ci") && !list.text.contains(&part("token_secret")));
    let gone = r.call("POST", "account/?op=delete_authorisation_token", &[("token_key", &part("token_key"))]).await;
    assert_eq!((gone.status.as_u16(), gone.kind.as_str()), (204, "text/plain"));
    assert_eq!(r.send(r.request("GET", "users/?op=whoami"), Some(&key)).await.status.as_u16(), 401);
    let token = r.call("POST", "/racks/tokens", &[]).await.json(200);
    assert!(token["token"].as_str().unwrap().contains('.'), "{token}");
    let kept = r.get("/racks/tokens").await;
    assert!(!kept.text.contains(token["token"].as_str().unwrap()));
    r.call("POST", "/racks/tokens", &[("hours", "0")]).await.is(400, "hours");
    assert_eq!(r.get("rackcontrollers/").await.json(200), json!([]));
    r.get("rackcontrollers/aaaaaa/").await.is(404, "No RackController");
    let types = r.get("rackcontrollers/?op=describe_power_types").await.json(200);
    assert!(types.as_array().unwrap().iter().any(|t| t["name"] == "ipmi" && t["queryable"] == true));
    r.call("POST", "maas/?op=set_config", &[("name", "kernel_opts"), ("value", "console=ttyS0")]).await.is(200, "OK");
    assert_eq!(r.get("maas/?op=get_config&name=kernel_opts").await.json(200), json!("console=ttyS0"));
    r.get("maas/?op=get_config&name=nonsense").await.is(400, "nonsense");
    let hashes = r.get("users/").await;
    assert!(!hashes.text.contains("argon2"));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_added_changed_and_deleted_but_built_in_ones_stay() {
    let r = Region::start().await;
    let text = "#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# name: 60-probe\n# timeout: 90\n# --- End MAAS 1.0 script metadata ---\nexit 0\n";
    let added = r.call("POST", "scripts/", &[("script", text), ("tags", "site,raid")]).await.json(200);
    assert_eq!(
        (&added["name"], &added["timeout"], &added["tags"]),
        (&json!("60-probe"), &json!("0:01:30"), &json!(["site", "raid"]))
    );
    r.call("POST", "scripts/", &[("script", text)]).await.is(400, "already exists");
    r.call("POST", "scripts/", &[("script", "no interpreter")]).await.is(400, "#!/bin/sh");
    r.call("POST", "scripts/", &[("script", text), ("name", "a b"), ("type", "odd")]).await.is(400, "name");
    assert_eq!(r.get("scripts/60-probe?op=download").await.text, text);
    let changed = r.call("PUT", "scripts/60-probe", &[("timeout", "2:00")]).await.json(200);
    assert_eq!((&changed["timeout"], &changed["id"]), (&json!("0:02:00"), &added["id"]));
    assert_eq!(r.get("scripts/?type=testing").await.json(200), json!([]));
    r.call("DELETE", "scripts/maas-capture-lldpd", &[]).await.is(400, "built-in");
    assert_eq!(r.call("DELETE", "scripts/60-probe", &[]).await.status.as_u16(), 204);
    r.get("scripts/60-probe").await.is(404, "Script");
    r.stop().await;
}
