//! Requests to a region: signed, and each failure with its exit code and what to do.

use std::time::Duration;

use region::api::oauth::Key;
use reqwest::{Method, StatusCode, header};
use serde_json::Value;

use super::{
    Global,
    failure::{Code, Failure},
    profile::{self, Profiles},
};

/// Names with values, for a query or a form.
pub type Fields<'a> = Vec<(&'a str, String)>;

/// A region's API.
pub struct Client {
    http: reqwest::Client,
    /// `http://HOST:5240/MAAS`
    base: String,
    key: Key,
    verbose: bool,
}

/// Longer than the longest wait of the API (a BMC has 60 s to answer).
const TIMEOUT: Duration = Duration::from_secs(75);

impl Client {
    /// A client by flags, environment or profile.
    ///
    /// # Errors
    /// When no region is chosen, or the key has the wrong form.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let (url, key) = match (&global.url, &global.key) {
            (Some(url), Some(key)) => (url.clone(), key.clone()),
            (url, key) => {
                let profiles = Profiles::load(&profile::path()?)?;
                let found = profiles.find(global.profile.as_deref())?;
                (url.clone().unwrap_or_else(|| found.url.clone()), key.clone().unwrap_or_else(|| found.key.clone()))
            }
        };
        Self::at(&url, &key, global.verbose)
    }

    /// A client of that region with that key.
    ///
    /// # Errors
    /// When the URL or the key has the wrong form.
    pub fn at(url: &str, key: &str, verbose: bool) -> Result<Self, Failure> {
        let key =
            key.parse().map_err(|why: String| Failure::usage(why, "copy the key as `hostler init` printed it"))?;
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).timeout(TIMEOUT).build();
        let http = http.map_err(|e| Failure::failed(format!("the HTTP client does not start: {e}")))?;
        Ok(Self { http, base: base(url)?, key, verbose })
    }

    /// The region's base URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET of a MAAS path (`machines/`).
    pub async fn get(&self, path: &str, query: &Fields<'_>) -> Result<Value, Failure> {
        self.maas(Method::GET, path, query, None).await
    }

    /// POST of a MAAS path, with a form.
    pub async fn post(&self, path: &str, form: &Fields<'_>) -> Result<Value, Failure> {
        self.maas(Method::POST, path, &Vec::new(), Some(form)).await
    }

    /// DELETE of a MAAS path.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.maas(Method::DELETE, path, &Vec::new(), None).await
    }

    async fn maas(
        &self,
        method: Method,
        path: &str,
        query: &Fields<'_>,
        form: Option<&Fields<'_>>,
    ) -> Result<Value, Failure> {
        self.send(method, &format!("{}/api/2.0/{path}", self.base), query, form).await
    }

    /// A request to one of Hostler's own paths (`/inspect/v1/…`).
    pub async fn own(&self, method: Method, path: &str, form: Option<&Fields<'_>>) -> Result<Value, Failure> {
        self.send(method, &self.own_url(path), &Vec::new(), form).await
    }

    fn own_url(&self, path: &str) -> String {
        format!("{}{path}", self.base.strip_suffix("/MAAS").unwrap_or(&self.base))
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        query: &Fields<'_>,
        form: Option<&Fields<'_>>,
    ) -> Result<Value, Failure> {
        let mut target = url.to_owned();
        if !query.is_empty() {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&encoded(query));
        }
        let mut request = self.http.request(method.clone(), &target).header(header::AUTHORIZATION, self.key.header());
        if let Some(form) = form {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(encoded(form));
        }
        if self.verbose {
            eprintln!("{method} {target}");
        }
        self.answer(request).await
    }

    /// GET of one of Hostler's own paths whose answer is read as it comes; `for_ever` without a limit of time.
    pub async fn stream(&self, path: &str, query: &Fields<'_>, for_ever: bool) -> Result<Stream<'_>, Failure> {
        self.read(Method::GET, path, query, for_ever).await
    }

    /// POST to one of Hostler's own paths that answers with a file.
    pub async fn download(&self, path: &str, query: &Fields<'_>) -> Result<Stream<'_>, Failure> {
        self.read(Method::POST, path, query, false).await
    }

    async fn read(
        &self,
        method: Method,
        path: &str,
        query: &Fields<'_>,
        for_ever: bool,
    ) -> Result<Stream<'_>, Failure> {
        let target = format!("{}?{}", self.own_url(path), encoded(query));
        let mut request = self.http.request(method.clone(), &target).header(header::AUTHORIZATION, self.key.header());
        if for_ever {
            request = request.timeout(Duration::from_secs(366 * 86_400));
        }
        if self.verbose {
            eprintln!("{method} {target}");
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        if answer.status().is_success() {
            return Ok(Stream { client: self, answer, rest: Vec::new() });
        }
        let status = answer.status();
        let text = answer.text().await.map_err(|e| self.unreachable(&e))?;
        Err(refusal(status, serde_json::from_str(&text).ok().as_ref(), &text))
    }

    /// Uploads a body to one of Hostler's own paths; `len` bytes from `body`, with no limit of time.
    pub async fn upload(&self, path: &str, body: reqwest::Body, len: u64) -> Result<Value, Failure> {
        let request = self
            .http
            .put(self.own_url(path))
            .timeout(Duration::from_secs(3_600))
            .header(header::AUTHORIZATION, self.key.header())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, len)
            .body(body);
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        let is_json = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|t| t.contains("json"));
        let text = answer.text().await.map_err(|e| self.unreachable(&e))?;
        if self.verbose {
            eprintln!("{status}, {} bytes", text.len());
        }
        let value = if is_json { serde_json::from_str(&text).ok() } else { None };
        if status.is_success() {
            return Ok(value.unwrap_or(if text.is_empty() { Value::Null } else { Value::String(text) }));
        }
        Err(refusal(status, value.as_ref(), &text))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            let what = format!("the region at {} did not answer in time", self.base);
            return Failure::new(Code::TimedOut, what, "look at the region's log, or try again");
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Failure::new(
            Code::Unreachable,
            format!("the region at {} cannot be reached: {cause}", self.base),
            "is `hostler region` running there? check the URL (hostler login), the port and the firewall",
        )
    }
}

/// An answer that is read as it comes.
pub struct Stream<'a> {
    client: &'a Client,
    answer: reqwest::Response,
    /// What came of a line whose end has not come.
    rest: Vec<u8>,
}

impl Stream<'_> {
    /// The name that the region gives the file; none with a path in it.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        let said = self.answer.headers().get(header::CONTENT_DISPOSITION)?.to_str().ok()?;
        let name = said.split_once("filename=\"")?.1.split('"').next()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (name.ends_with(".tar") && !name.starts_with('.') && name.chars().all(plain)).then(|| name.to_owned())
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<impl std::ops::Deref<Target = [u8]> + use<>>, Failure> {
        self.answer.chunk().await.map_err(|e| self.client.unreachable(&e))
    }

    /// The next line, as JSON; `None` at the end. Lines that are none keep the connection busy and say nothing.
    pub async fn next_line(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if let Ok(value) = serde_json::from_slice(&line) {
                    return Ok(Some(value));
                }
            }
            let Some(bytes) = self.next().await? else { return Ok(None) };
            self.rest.extend_from_slice(&bytes);
        }
    }
}

/// What the region refused, with the code of the contract.
fn refusal(status: StatusCode, value: Option<&Value>, text: &str) -> Failure {
    let told = |name: &str| value.and_then(|v| v.get(name)).and_then(Value::as_str).map(str::to_owned);
    let (detail, remedy) = (told("detail"), told("remedy").unwrap_or_default());
    let detail = detail.unwrap_or_else(|| value.and_then(fields).unwrap_or_else(|| text.trim().to_owned()));
    let detail = if detail.is_empty() { status.to_string() } else { detail };
    match status {
        StatusCode::UNAUTHORIZED => {
            let remedy = "log in with a valid key (hostler login PROFILE URL KEY), and check this machine's clock";
            Failure::new(Code::NotAuthorised, format!("the region refuses the key: {detail}"), remedy)
        }
        StatusCode::FORBIDDEN => Failure::new(Code::NotAuthorised, detail, or(remedy, "use an administrator's key")),
        StatusCode::NOT_FOUND => Failure::new(Code::NotFound, detail, remedy),
        StatusCode::CONFLICT => Failure::new(Code::Conflict, detail, remedy),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Failure::new(Code::Usage, detail, remedy),
        StatusCode::SERVICE_UNAVAILABLE => Failure::new(Code::Failed, detail, or(remedy, "try again in a few seconds")),
        _ => Failure::new(Code::Failed, format!("the region answered {status}: {detail}"), remedy),
    }
}

fn or(remedy: String, other: &str) -> String {
    if remedy.is_empty() { other.to_owned() } else { remedy }
}

/// MAAS's map of wrong fields, as lines.
fn fields(value: &Value) -> Option<String> {
    let lines = value.as_object()?.iter().map(|(name, messages)| {
        let all: Vec<_> = messages.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if name == "__all__" { all.join(" ") } else { format!("{name}: {}", all.join(" ")) }
    });
    Some(lines.collect::<Vec<_>>().join("\n  "))
}

fn encoded(fields: &Fields<'_>) -> String {
    use region::api::oauth::encoded;
    let pairs: Vec<_> = fields.iter().map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect();
    pairs.join("&")
}

/// The base of a URL as people write it: with or without `/MAAS`, a slash, or `/api/2.0/`.
fn base(url: &str) -> Result<String, Failure> {
    let text = url.trim().trim_end_matches('/');
    let remedy = "write it as http://HOST:5240/MAAS";
    let parsed =
        reqwest::Url::parse(text).map_err(|e| Failure::usage(format!("\"{url}\" is not a URL: {e}"), remedy))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host().is_none() {
        return Err(Failure::usage(format!("\"{url}\" is not an http or https URL"), remedy));
    }
    let text = text.strip_suffix("/api/2.0").unwrap_or(text);
    Ok(if matches!(parsed.path(), "" | "/") { format!("{text}/MAAS") } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_are_taken_as_people_write_them() {
        for url in [
            "http://h:5240",
            "http://h:5240/",
            "http://h:5240/MAAS",
            "http://h:5240/MAAS/",
            "http://h:5240/MAAS/api/2.0/",
        ] {
            assert_eq!(base(url).unwrap(), "http://h:5240/MAAS", "{url}");
        }
        for url in ["h:5240", "ftp://h/", "", "http://"] {
            assert_eq!(base(url).unwrap_err().code, Code::Usage, "{url}");
        }
    }

    #[test]
    fn refusals_have_the_codes_of_the_contract() {
        let code = |status: u16| refusal(StatusCode::from_u16(status).unwrap(), None, "x").code;
        let codes: Vec<_> = [400, 401, 403, 404, 409, 500, 503].map(code).to_vec();
        use Code::*;
        assert_eq!(codes, [Usage, NotAuthorised, NotAuthorised, NotFound, Conflict, Failed, Failed]);
        let map = json!({"mac_addresses": ["already in use on fox."], "__all__": ["b"]});
        assert_eq!(refusal(StatusCode::BAD_REQUEST, Some(&map), "").what, "b\n  mac_addresses: already in use on fox.");
        let problem = json!({"detail": "no", "remedy": "do"});
        assert_eq!(refusal(StatusCode::CONFLICT, Some(&problem), "").remedy, "do");
    }
}
