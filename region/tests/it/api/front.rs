//! The page at `/` and the pages below it: who sees them, and that what a link leads to can be read.

use region::sessions::COOKIE;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_leads_to_what_can_be_read() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let id = fox["system_id"].as_str().unwrap();
    r.call("POST", &format!("machines/{id}/?op=mark_broken"), &[("comment", "smoke <came> out")]).await.json(200);
    let explain = format!("/explain/{id}");
    for path in ["/", "/live", explain.as_str()] {
        r.send(r.request("GET", path), None).await.is(401, "Sign in");
    }
    r.user("bob").await;
    let cookie = format!("{COOKIE}={}", r.app().sessions.open("bob").expose());
    let look = |path: String, accept: &'static str| {
        let (r, request) = (&r, r.request("GET", &path).header("cookie", &cookie).header("accept", accept));
        async move { r.send(request, None).await }
    };
    let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
    let page = look("/".into(), browser).await;
    page.is(200, &format!("<a href=\"{explain}\">fox</a>"));
    page.is(200, "smoke &lt;came&gt; out");
    let explained = look(explain, browser).await;
    explained.is(200, "<h1>fox</h1>");
    explained.is(200, "smoke &lt;came&gt; out");
    look("/explain/zzzzzz".into(), browser).await.is(404, "There is no machine \"zzzzzz\"");
    // A browser's JSON has lines; a program's is what it was.
    let summary = look("/inspect/v1/summary".into(), browser).await;
    assert!(summary.text.starts_with("{\n  \"") && summary.json(200)["actors"].is_number(), "{}", summary.text);
    let summary = look("/inspect/v1/summary".into(), "application/json").await;
    assert!(summary.json(200)["actors"].is_number() && summary.text.lines().count() == 1, "{}", summary.text);
    let wrong = look("/inspect/v1/actors?limit=0".into(), browser).await;
    assert!(wrong.json(400)["fields"]["limit"].is_array() && wrong.text.lines().count() > 1, "{}", wrong.text);
    r.stop().await;
}
