//! What the benches of the region's API share: a region with SQLite in a temporary folder, its arguments, quantiles, CPU seconds.
#![allow(dead_code, reason = "each bench uses its part")]

use std::{fs, net::SocketAddrV4, process::ExitCode};

use benches::{
    api::Api,
    yard::{Region, RegionPlace, Trouble},
};
use region::api::{annex::Annexes, oauth::Key};

/// A region, and the way to it.
pub(crate) struct Place {
    pub(crate) api: Api,
    pub(crate) address: SocketAddrV4,
    key: Key,
    cookie: String,
    region: Region,
    served: region::api::Running,
    _dir: tempfile::TempDir,
}

impl Place {
    pub(crate) async fn open() -> Result<Self, Trouble> {
        let dir = tempfile::tempdir().map_err(|e| Trouble(format!("no temporary folder: {e}")))?;
        let region = Region::start(RegionPlace { dir: dir.path().into(), database: None }).await?;
        let served = region.open_api(0, Annexes::new())?;
        let (url, text) = (format!("http://{}/MAAS/", served.address), region.made.api_key.expose().clone());
        let api = Api::new(&url, &text)?;
        let key = text.parse().map_err(Trouble)?;
        let cookie = region.running.app.sessions.open(&region.made.username).expose().clone();
        let address =
            served.address.to_string().parse().map_err(|_| Trouble(format!("{} is no IPv4", served.address)))?;
        Ok(Self { api, address, key, cookie, region, served, _dir: dir })
    }

    /// Who asks: by the API's key and by the browser's cookie.
    pub(crate) fn headers(&self) -> [(&'static str, String); 2] {
        let cookie = format!("{}={}", region::sessions::COOKIE, self.cookie);
        [("Authorization", self.key.header()), ("Cookie", cookie)]
    }

    pub(crate) async fn close(self) {
        self.served.stop().await;
        self.region.running.stop().await;
    }
}

/// Runs a bench with its one argument, a whole number between bounds. What is wrong with it, or with the bench, is said in one line.
pub(crate) fn main<F: Future<Output = Result<(), Trouble>>>(
    name: &str,
    (default, least, most): (usize, usize, usize),
    bench: impl FnOnce(usize) -> F,
) -> ExitCode {
    let fault = |code: u8, why: String| {
        eprintln!("error: {why}");
        ExitCode::from(code)
    };
    let argument = match number(name, default, least, most) {
        Ok(argument) => argument,
        Err(why) => return fault(2, why),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map(|runtime| runtime.block_on(bench(argument))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(trouble)) => fault(1, trouble.to_string()),
        Err(error) => fault(1, format!("the runtime does not start: {error}")),
    }
}

/// Cargo's own arguments (`--bench`) are passed over.
fn number(name: &str, default: usize, least: usize, most: usize) -> Result<usize, String> {
    let Some(text) = std::env::args().skip(1).find(|argument| argument != "--bench") else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        format!("{name} \"{text}\": it is a whole number from {least} to {most}; give one, as in -- {default}")
    })
}

/// The value that so many percent do not exceed.
pub(crate) fn quantile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(rank).copied().unwrap_or(f64::NAN)
}

/// The host's load, which belongs to every figure.
pub(crate) fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

/// CPU seconds of this process.
pub(crate) fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks = fields.get(11..13).into_iter().flatten().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    ticks / 100.0
}
