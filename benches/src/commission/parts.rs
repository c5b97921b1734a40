//! What each process of the bench does: the region, all racks, the fleet. Each begins by its spec, says what it is, and answers questions
//! until its standard input ends.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use region::api::annex::Annexes;
use schema::{id::RackId, secret::Secret};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    fleet::{Door, Fleet, bmcs::Bmcs, lag::Lag},
    yard::{self, Layout, Region, RegionPlace, Seat, Trouble, operator, trouble},
};

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Region,
    Racks,
    Fleet,
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "region" => Ok(Self::Region),
            "racks" => Ok(Self::Racks),
            "fleet" => Ok(Self::Fleet),
            other => Err(format!("\"{other}\" is none of region, racks, fleet")),
        }
    }
}

/// Runs a part until its standard input ends.
///
/// # Errors
/// What did not start; the bench is told too.
pub async fn run(part: Part, dir: PathBuf, spec: &str) -> Result<(), Trouble> {
    let spec: Value = serde_json::from_str(spec).map_err(trouble("the spec"))?;
    let questions = questions();
    let done = match part {
        Part::Region => region(dir, spec, questions).await,
        Part::Racks => racks(dir, spec, questions).await,
        Part::Fleet => fleet(spec, questions).await,
    };
    if let Err(error) = &done {
        say(&json!({ "error": error.to_string() }));
    }
    done
}

fn say(value: &Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).ok(); // Nobody listens: the input's end comes next.
}

/// The lines of standard input, read by a thread of their own.
fn questions() -> Questions {
    let (heard, questions) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if heard.send(serde_json::from_str(&line).unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    questions
}

type Questions = mpsc::UnboundedReceiver<Value>;

#[derive(Deserialize)]
struct RegionSpec {
    racks: u32,
    database: Option<String>,
    /// It was there before, and was killed.
    #[serde(default)]
    again: Option<RegionAgain>,
}

/// Where it was reached.
#[derive(Deserialize)]
struct RegionAgain {
    link: SocketAddr,
    api: u16,
}

async fn region(dir: PathBuf, spec: Value, mut questions: Questions) -> Result<(), Trouble> {
    let spec: RegionSpec = serde_json::from_value(spec).map_err(trouble("the spec"))?;
    if let Some(again) = spec.again {
        return region_again(&dir, &again, questions).await;
    }
    let region = Region::start(RegionPlace { dir, database: spec.database.map(Secret::new) }).await?;
    let api = region.open_api(0, Annexes::new())?;
    say(&json!({
        "url": format!("http://{}/MAAS/", api.address), "port": api.address.port(), "api_key": region.made.api_key.expose(),
        "link": region.running.link, "tokens": region.tokens(spec.racks).await?,
    }));
    while let Some(asked) = questions.recv().await {
        let racks: Vec<RackId> = serde_json::from_value(asked["furnish"].clone()).map_err(trouble("the racks"))?;
        region.furnish(&racks).await?;
        say(&json!({}));
    }
    api.stop().await;
    region.running.stop().await;
    Ok(())
}

async fn region_again(dir: &Path, again: &RegionAgain, mut questions: Questions) -> Result<(), Trouble> {
    let running = Region::resume(dir, again.link).await?;
    let api = yard::open_api(&running, again.api, Annexes::new())?;
    say(&json!({ "link": running.link }));
    while questions.recv().await.is_some() {}
    api.stop().await;
    running.stop().await;
    Ok(())
}

#[derive(Deserialize)]
struct RacksSpec {
    link: SocketAddr,
    tokens: Vec<String>,
    /// They were there before, and were killed: where each served.
    #[serde(default)]
    again: Vec<Seat>,
}

async fn racks(dir: PathBuf, spec: Value, mut questions: Questions) -> Result<(), Trouble> {
    let spec: RacksSpec = serde_json::from_value(spec).map_err(trouble("the spec"))?;
    let (mut ids, mut racks) = (Vec::new(), Vec::new());
    for (number, token) in (0..).zip(&spec.tokens) {
        let (id, rack) = yard::start_rack(yard::rack_config(&dir, number, spec.link), token).await?;
        ids.push(id);
        racks.push(rack);
    }
    for (number, seat) in (0..).zip(&spec.again) {
        let mut config = yard::rack_config(&dir, number, spec.link);
        seat.take(&mut config);
        racks.push(yard::resume_rack(config).await?);
    }
    let seats = racks.iter().map(Seat::of).collect::<Result<Vec<_>, _>>()?;
    let doors: Vec<_> = seats.iter().map(Seat::door).collect();
    say(&json!({ "ids": ids, "seats": seats, "doors": doors }));
    // The one question: how many are linked.
    while questions.recv().await.is_some() {
        say(&json!({ "linked": racks.iter().filter(|rack| rack.status().linked()).count() }));
    }
    for rack in racks {
        rack.stop().await;
    }
    Ok(())
}

#[derive(Deserialize)]
struct FleetSpec {
    layout: Layout,
    doors: Vec<Door>,
}

async fn fleet(spec: Value, mut questions: Questions) -> Result<(), Trouble> {
    let spec: FleetSpec = serde_json::from_value(spec).map_err(trouble("the spec"))?;
    let fleet = Fleet::new(spec.layout.fleet(spec.doors), tokio::runtime::Handle::current());
    let bmcs = Bmcs::start(&fleet).map_err(trouble("the BMCs"))?;
    let lag = Lag::watch();
    say(&json!({}));
    while let Some(asked) = questions.recv().await {
        match asked.as_str() {
            Some("machines") => {
                say(&fleet.hardware().iter().map(|h| operator::described(&bmcs, h, fleet.racks())).collect::<Value>())
            }
            Some("counts") => {
                let mut counts = fleet.counts().json();
                let ([ipmi, redfish], machines) = (bmcs.heard(), spec.layout.machines);
                let by_redfish = bmcs.redfish_of(machines);
                counts["bmc"] = json!({ "ipmi": ipmi, "redfish": redfish });
                counts["power"] = json!({ "ipmi": machines as usize - by_redfish, "redfish": by_redfish });
                counts["lag_p99_ms"] = json!(lag.p99_ms());
                let again = fleet.started_again();
                counts["started_again"] = json!({ "machines": again.len(), "some": again.get(..10).unwrap_or(&again) });
                counts["hanging"] = json!(fleet.hanging().into_iter().take(10).collect::<Vec<_>>());
                say(&counts);
            }
            _ => say(&json!({ "error": format!("no such question: {asked}") })),
        }
    }
    Ok(())
}
