//! The API over real HTTP: a region on SQLite in a temporary directory, asked with reqwest as clients do.

use std::time::Duration;

use region::{
    api::{self, oauth::Key},
    app, init,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

mod bodies;
mod domains;
mod front;
mod machines;
mod network;
mod others;

/// A region that answers, and the keys to it.
pub(crate) struct Region {
    running: Option<app::Running>,
    api: Option<api::Running>,
    pub(crate) key: Key,
    pub(crate) password: String,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) kind: String,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Said {
    /// The body as JSON, after a check of the status.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, part: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.text.contains(part), "\"{part}\" is not in: {}", self.text);
    }
}

impl Region {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With another configuration than the one that `init` makes.
    pub(crate) async fn start_with(change: impl FnOnce(&mut region::config::Config)) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let folder = tempfile::tempdir().unwrap();
        let local = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let made = init::init(init::Options {
            config: folder.path().join("region.toml"),
            data_dir: folder.path().join("data"),
            database: None,
            api_listen: local(0),
            link_listen: local(0),
            dns_listen: local(0),
            username: "admin".into(),
            email: "admin@example.org".into(),
            password: None,
            token_lasts: Duration::from_secs(3_600),
        });
        let made = made.await.unwrap();
        let mut config = made.config.clone();
        change(&mut config);
        let running = app::start(config).await.unwrap();
        let api = api::start(running.app.clone(), local(0)).unwrap();
        Self {
            running: Some(running),
            api: Some(api),
            key: made.api_key.expose().parse().unwrap(),
            password: made.password.expose().clone(),
            http: reqwest::Client::new(),
            _folder: folder,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let address = self.api.as_ref().unwrap().address;
        if path.starts_with('/') {
            format!("http://{address}{path}")
        } else {
            format!("http://{address}/MAAS/api/2.0/{path}")
        }
    }

    /// A request as it is, with or without a key.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder, key: Option<&Key>) -> Said {
        let request = match key {
            Some(key) => request.header("authorization", key.header()),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let kind = headers.get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        Said { status, kind, headers, text: answer.text().await.unwrap() }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path))
    }

    /// A signed request with a form.
    pub(crate) async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Said {
        let mut request = self.request(method, path);
        if !form.is_empty() {
            let pairs: Vec<_> =
                form.iter().map(|(n, v)| format!("{}={}", api::oauth::encoded(n), api::oauth::encoded(v))).collect();
            request = request.header("content-type", "application/x-www-form-urlencoded").body(pairs.join("&"));
        }
        self.send(request, Some(&self.key)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.call("GET", path, &[]).await
    }

    /// Where the inspection listens by itself.
    pub(crate) fn inspect(&self) -> Option<std::net::SocketAddr> {
        self.api.as_ref().unwrap().inspect
    }

    pub(crate) fn app(&self) -> &app::App {
        &self.running.as_ref().unwrap().app
    }

    /// An ordinary user's key.
    pub(crate) async fn user(&self, name: &str) -> Key {
        let form = [("username", name), ("email", "u@example.org"), ("password", "pw"), ("is_superuser", "0")];
        self.call("POST", "users/", &form).await.json(200);
        let body = format!("username={name}&password=pw&consumer=t");
        let request = self.request("POST", "/MAAS/accounts/authenticate/");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        let token = self.send(request, None).await.json(200);
        let part = |name: &str| token[name].as_str().unwrap().to_owned();
        format!("{}:{}:{}", part("consumer_key"), part("token_key"), part("token_secret")).parse().unwrap()
    }

    /// Where the region's DNS answers.
    pub(crate) fn dns(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().dns.addresses()[0]
    }

    /// A machine that stays New.
    pub(crate) async fn machine(&self, name: &str, mac: &str) -> Value {
        let form = [
            ("hostname", name),
            ("architecture", "amd64"),
            ("mac_addresses", mac),
            ("power_type", "manual"),
            ("commission", "false"),
        ];
        self.call("POST", "machines/", &form).await.json(200)
    }

    pub(crate) async fn stop(mut self) {
        self.api.take().unwrap().stop().await;
        self.running.take().unwrap().stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_decide_who_calls() {
    let r = Region::start().await;
    let ask = |key: Option<Key>| {
        let (r, request) = (&r, r.request("GET", "users/?op=whoami"));
        async move { r.send(request, key.as_ref()).await }
    };
    let none = ask(None).await;
    none.is(401, "API key");
    assert!(none.headers.contains_key("date") && none.headers.contains_key("www-authenticate"));
    assert_eq!(none.kind, "text/plain; charset=utf-8");
    let wrong = Key { token_key: "wrong".into(), ..r.key.clone() };
    ask(Some(wrong)).await.is(401, "Authorization Error: Invalid API key.");
    let me = ask(Some(r.key.clone())).await.json(200);
    assert_eq!((me["username"].as_str(), me["is_superuser"].as_bool()), (Some("admin"), Some(true)));
    // The same signed request serves once.
    let header = r.key.header();
    for status in [200, 401] {
        let request = r.request("GET", "users/?op=whoami").header("authorization", &header);
        assert_eq!(r.send(request, None).await.status.as_u16(), status);
    }
    // An ordinary user reads, and changes nothing.
    let form = [("username", "bob"), ("email", "b@example.org"), ("password", "pw"), ("is_superuser", "0")];
    r.call("POST", "users/", &form).await.json(200);
    let form = [("username", "bob"), ("password", "pw"), ("consumer", "t")];
    let body = form.map(|(n, v)| format!("{n}={v}")).join("&");
    let request = r.request("POST", "/MAAS/accounts/authenticate/");
    let token =
        r.send(request.header("content-type", "application/x-www-form-urlencoded").body(body), None).await.json(200);
    let part = |name: &str| token[name].as_str().unwrap().to_owned();
    let bob: Key = format!("{}:{}:{}", part("consumer_key"), part("token_key"), part("token_secret")).parse().unwrap();
    assert_eq!(r.send(r.request("GET", "machines/"), Some(&bob)).await.json(200), json!([]));
    r.send(r.request("POST", "machines/"), Some(&bob)).await.is(403, "administrator");
    r.send(r.request("POST", "/racks/tokens"), Some(&bob)).await.is(403, "remedy");
    // A wrong password is 403 with an empty body.
    let request =
        r.request("POST", "/MAAS/accounts/authenticate/").header("content-type", "application/x-www-form-urlencoded");
    let said = r.send(request.body(format!("username=admin&password={}x", r.password)), None).await;
    assert_eq!((said.status.as_u16(), said.text.as_str()), (403, ""));
    r.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_health_need_no_key_and_unknown_paths_are_said_in_the_right_way() {
    let r = Region::start().await;
    let plain = |path: &'static str| {
        let (r, request) = (&r, r.request("GET", path));
        async move { r.send(request, None).await }
    };
    let version = plain("version/").await.json(200);
    assert!(version["capabilities"].as_array().unwrap().contains(&json!("network-deployment-ubuntu")));
    assert!(version["version"].is_string() && version["subversion"].is_string());
    plain("/MAAS/api/version/").await.is(200, "2.0");
    plain("/MAAS/api/1.0/nodes/").await.is(410, "2.0");
    plain("/healthz").await.is(200, "ok");
    plain("/readyz").await.json(200);
    plain("nothing/").await.is(404, "Unknown API endpoint: /MAAS/api/2.0/nothing/.");
    let problem = plain("/nothing").await;
    assert_eq!(problem.kind, "application/problem+json");
    assert!(problem.json(404)["remedy"].is_string());
    r.get("machines/?op=foo").await.is(400, "Unrecognised signature: method=GET op=foo");
    let unsigned = plain("/inspect/v1/actors").await;
    assert_eq!((unsigned.kind.as_str(), unsigned.status.as_u16()), ("application/problem+json", 401));
    r.stop().await;
}
