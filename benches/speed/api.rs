//! What the API takes when ten thousand machines are there: add, list, read, search, explain, and the pages of the inspection. Prints a table.
//!
//! Hypothesis: reading one machine costs the same at ten as at ten thousand; a list of all grows with its length and nothing else.
//! Run: `cargo bench -p benches --bench api [-- MACHINES]`. One region with SQLite and its client in one process, over loopback; machines are
//! added sixteen at once, and everything is read one by one.

mod place;

use std::time::Duration;

use actors::clock::tick;
use benches::{
    api::Api,
    yard::{
        Trouble,
        operator::{add, many},
    },
};
use place::{Place, quantile};

/// How long each row is asked for, and how often at least.
const SPAN: Duration = Duration::from_secs(3);
const LEAST: usize = 10;

fn main() -> std::process::ExitCode {
    place::main("MACHINES", (10_000, 10, 60_000), measure)
}

async fn measure(machines: usize) -> Result<(), Trouble> {
    let place = Place::open().await?;
    println!("{machines} machines, SQLite, load {}", place::load());
    println!("| what | answers/s | p50 ms | p99 ms | bytes |\n|---|--:|--:|--:|--:|");
    let ids = create(&place.api, machines).await?;
    let at = |turn: usize| ids.get(turn.wrapping_mul(7_919) % ids.len()).map_or("", String::as_str);
    let mac = |turn: usize| mac(turn.wrapping_mul(7_919) % machines);
    let rows: [(&str, &dyn Fn(usize) -> String); 9] = [
        ("read one", &|turn| format!("/MAAS/api/2.0/machines/{}/", at(turn))),
        ("find one by its MAC", &|turn| format!("/MAAS/api/2.0/machines/?mac_address={}", mac(turn))),
        ("list all", &|_| "/MAAS/api/2.0/machines/".into()),
        ("explain one", &|turn| format!("/inspect/v1/explain/{}", at(turn))),
        ("the fleet's figures", &|_| "/fleet".into()),
        ("inspection: summary", &|_| "/inspect/v1/summary".into()),
        ("inspection: 100 actors by queue", &|_| "/inspect/v1/actors?kind=machine&sort=-queue&limit=100".into()),
        ("inspection: heat of all", &|_| "/inspect/v1/heat?kind=machine&metric=queue".into()),
        ("metrics", &|_| "/metrics".into()),
    ];
    for (what, path) in rows {
        read(&place.api, what, path).await?;
    }
    place.close().await;
    Ok(())
}

/// The MAC of machine `n`.
fn mac(n: usize) -> String {
    let [.., b, c, d] = n.to_be_bytes();
    format!("52:54:00:{b:02x}:{c:02x}:{d:02x}")
}

/// Adds all machines; their ids.
async fn create(api: &Api, machines: usize) -> Result<Vec<String>, Trouble> {
    let began = tick();
    let made = many((0..machines).collect(), |n| {
        let api = api.clone();
        async move {
            let form = [("hostname", format!("host-{n}")), ("architecture", "amd64".into()), ("mac_addresses", mac(n))];
            let own = [("power_type", "manual".into()), ("commission", "false".to_owned())];
            let form: Vec<_> = form.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value)).collect();
            let began = tick();
            let id = add(&api, &form).await?;
            Ok((id, began.elapsed().as_secs_f64() * 1e3))
        }
    });
    let made = made.await?;
    let seconds = began.elapsed().as_secs_f64();
    let (ids, ms): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    row("add, 16 at once", ms.len() as f64 / seconds, ms, 0);
    Ok(ids)
}

async fn read(api: &Api, what: &str, path: &dyn Fn(usize) -> String) -> Result<(), Trouble> {
    let (mut ms, mut bytes, began) = (Vec::new(), 0, tick());
    while ms.len() < LEAST || began.elapsed() < SPAN {
        let path = path(ms.len());
        let asked = tick();
        bytes = api.bytes(&path).await?.len();
        ms.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    row(what, ms.len() as f64 / began.elapsed().as_secs_f64(), ms, bytes);
    Ok(())
}

fn row(what: &str, per_second: f64, mut ms: Vec<f64>, bytes: usize) {
    let (p50, p99) = (quantile(&mut ms, 50), quantile(&mut ms, 99));
    println!("| {what} | {per_second:.0} | {p50:.2} | {p99:.2} | {bytes} |");
}
