//! The read side: what API, link and shell ask of the database, as plain values. Run them with [`super::Store::read`].

use std::net::Ipv4Addr;

use ::actors::reach::Reached;
use diesel::{QueryResult, prelude::*};
use schema::{
    id::{Generation, RackId, ReportSeq, SubnetId, SystemId},
    net::MacAddr,
    plan::Lease,
    projection::{EventLine, Level},
    tables::*,
    time::Timestamp,
};
use serde::de::DeserializeOwned;

use super::Db;

mod inventory;
mod results;

pub use inventory::*;
pub use results::*;

/// An actor's state as JSON, with its generation.
///
/// # Errors
/// When the database does not answer; so with every query here. When the state is nowhere, which no step of ours leaves behind.
pub fn load_actor(db: &mut Db, kind: &str, id: &str) -> QueryResult<Option<(String, Generation)>> {
    // Where the first look finds no state, its step was dropped just between the two reads: it stands in the actor's row now.
    for _ in 0..2 {
        let row: Option<(Option<String>, i64)> =
            actors::table.find((kind, id)).select((actors::state, actors::generation)).first(db).optional()?;
        let Some((kept, generation)) = row else { return Ok(None) };
        let state = match kept {
            Some(state) => Some(state),
            None => told_at(db, kind, id, generation)?,
        };
        if let Some(state) = state {
            return Ok(Some((state, Generation(unsigned(generation)))));
        }
    }
    let why = format!(
        "{kind} {id} has no state, neither in its row of actors nor in the journal: somebody changed the database; restore it from a backup"
    );
    Err(diesel::result::Error::DeserializationError(why.into()))
}

/// The state that a step left, by the journal. By the whole key: a join would go through all steps of the actor.
fn told_at(db: &mut Db, kind: &str, id: &str, generation: i64) -> QueryResult<Option<String>> {
    journal::table
        .filter(journal::kind.eq(kind))
        .filter(journal::id.eq(id))
        .filter(journal::generation.eq(generation))
        .select(journal::state)
        .first(db)
        .optional()
}

/// The ids of all actors of a kind, in order.
pub fn actor_ids(db: &mut Db, kind: &str) -> QueryResult<Vec<String>> {
    actors::table.filter(actors::kind.eq(kind)).select(actors::id).order(actors::id).load(db)
}

/// Actors that wait, with the time when they must be woken, earliest first. Those after `until` are left out.
pub fn actors_with_deadline(db: &mut Db, until: Timestamp) -> QueryResult<Vec<(String, String, Timestamp)>> {
    let rows: Vec<(String, String, Option<i64>)> = actors::table
        .filter(actors::deadline.le(until.0))
        .select((actors::kind, actors::id, actors::deadline))
        .order(actors::deadline)
        .load(db)?;
    Ok(rows.into_iter().map(|(kind, id, at)| (kind, id, Timestamp(at.unwrap_or(0)))).collect())
}

/// A step of an actor, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalStep {
    /// Rises with every step of every actor; may have gaps.
    pub seq: i64,
    /// The actor's generation after the step.
    pub generation: Generation,
    /// JSON.
    pub event: String,
    /// The state after, JSON.
    pub state: String,
    /// JSON.
    pub verdict: String,
    /// 32 hexadecimal digits.
    pub trace: String,
    pub at: Timestamp,
}

/// An actor's steps, newest first; with `before`, only those whose `seq` is smaller.
pub fn journal_of(db: &mut Db, kind: &str, id: &str, before: Option<i64>, limit: i64) -> QueryResult<Vec<JournalStep>> {
    let rows: Vec<JournalRow> = journal::table
        .filter(journal::kind.eq(kind))
        .filter(journal::id.eq(id))
        .filter(journal::seq.lt(before.unwrap_or(i64::MAX)))
        .order(journal::generation.desc())
        .limit(limit)
        .load(db)?;
    Ok(rows.into_iter().map(journal_step).collect())
}

/// The steps of a trace with their actors' kinds and ids, oldest first. Reads the whole journal: for people, now and then.
pub fn traced(db: &mut Db, trace: &str, limit: i64) -> QueryResult<Vec<(String, String, JournalStep)>> {
    let rows: Vec<JournalRow> =
        journal::table.filter(journal::trace.eq(trace)).order(journal::seq).limit(limit).load(db)?;
    Ok(rows.into_iter().map(|row| (row.kind.clone(), row.id.clone(), journal_step(row))).collect())
}

fn journal_step(row: JournalRow) -> JournalStep {
    JournalStep {
        seq: row.seq,
        generation: Generation(unsigned(row.generation)),
        event: row.event,
        state: row.state,
        verdict: row.verdict,
        trace: row.trace,
        at: Timestamp(row.at),
    }
}

/// Rows and bytes of the journal: what a person who watches the disk asks for.
pub fn journal_size(db: &mut Db) -> QueryResult<(i64, i64)> {
    #[derive(QueryableByName)]
    struct Size {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        bytes: i64,
    }
    let size: Size = diesel::sql_query(
        "SELECT count(*) AS count, CAST(coalesce(sum(length(event) + length(state) + length(verdict)), 0) AS BIGINT) \
         AS bytes FROM journal",
    )
    .get_result(db)?;
    Ok((size.count, size.bytes))
}

/// The last report of that rack that is durable here; 0 when none is.
pub fn report_seen(db: &mut Db, rack: RackId) -> QueryResult<ReportSeq> {
    let seq: Option<i64> = rack_reports::table.find(rack.as_str()).select(rack_reports::seq).first(db).optional()?;
    Ok(ReportSeq(seq.map_or(0, unsigned)))
}

/// All that is known of the ways to BMCs. A row whose rack's id cannot be read is left out.
pub fn reach(db: &mut Db) -> QueryResult<Vec<Reached>> {
    let rows: Vec<ReachRow> = bmc_reach::table.load(db)?;
    let read = |row: ReachRow| {
        let (reachable, at) = (row.reachable, Timestamp(row.at));
        Some(Reached { bmc: row.bmc, rack: row.rack.parse().ok()?, reachable, at, how: row.how })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// A line of history with its number and the host it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    /// The machine or rack; `None` for what belongs to neither.
    pub system_id: Option<SystemId>,
    /// The machine's name, if the machine is still there.
    pub hostname: Option<String>,
    pub line: EventLine,
    /// The piece of work that it belongs to: 32 hexadecimal digits.
    pub trace: Option<String>,
}

/// Which events are asked for. Empty lists admit all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub system_ids: Vec<SystemId>,
    pub hostnames: Vec<String>,
    pub macs: Vec<MacAddr>,
    pub zones: Vec<String>,
    /// The user who did it.
    pub owner: Option<String>,
    /// This level and above; [`Level::Audit`] admits audit lines alone.
    pub level: Option<Level>,
    /// Only ids below this one: older lines.
    pub before: Option<i64>,
    /// Only ids above this one: newer lines; of those, the oldest `limit`.
    pub after: Option<i64>,
    /// 0 is 100, MAAS's default.
    pub limit: i64,
}

/// A page of events, newest first.
pub fn events(db: &mut Db, filter: &EventFilter) -> QueryResult<Vec<Event>> {
    let mut query =
        events::table.left_join(machines::table.on(events::system_id.eq(machines::system_id.nullable()))).into_boxed();
    if !filter.system_ids.is_empty() {
        let ids: Vec<String> = filter.system_ids.iter().map(SystemId::to_string).collect();
        query = query.filter(events::system_id.eq_any(ids));
    }
    if !filter.hostnames.is_empty() {
        query = query.filter(machines::hostname.eq_any(filter.hostnames.clone()));
    }
    if !filter.zones.is_empty() {
        query = query.filter(machines::zone.eq_any(filter.zones.clone()));
    }
    if !filter.macs.is_empty() {
        query = query.filter(events::system_id.eq_any(machines_with(db, &filter.macs)?));
    }
    if let Some(owner) = &filter.owner {
        query = query.filter(events::username.eq(owner.clone()));
    }
    match filter.level {
        Some(Level::Audit) => query = query.filter(events::level.eq(level_number(Level::Audit))),
        Some(level) => query = query.filter(events::level.ge(level_number(level))),
        None => {}
    }
    if let Some(before) = filter.before {
        query = query.filter(events::id.lt(before));
    }
    query = match filter.after {
        Some(after) => query.filter(events::id.gt(after)).order(events::id.asc()),
        None => query.order(events::id.desc()),
    };
    let limit = if filter.limit > 0 { filter.limit } else { 100 };
    let mut rows: Vec<(EventRow, Option<String>)> =
        query.select((events::all_columns, machines::hostname.nullable())).limit(limit).load(db)?;
    if filter.after.is_some() {
        rows.reverse();
    }
    rows.into_iter().map(|(row, hostname)| event(row, hostname)).collect()
}

fn event(row: EventRow, hostname: Option<String>) -> QueryResult<Event> {
    Ok(Event {
        id: row.id,
        system_id: row.system_id.map(|id| parsed("events.system_id", &id)).transpose()?,
        hostname,
        line: EventLine {
            at: Timestamp(row.at),
            level: level_of(row.level),
            event_type: row.event_type,
            description: row.description,
            by: row.username,
        },
        trace: row.trace,
    })
}

/// MAAS's number of a level, which is also the column.
#[must_use]
pub fn level_number(level: Level) -> i64 {
    match level {
        Level::Audit => 0,
        Level::Debug => 10,
        Level::Info => 20,
        Level::Warning => 30,
        Level::Error => 40,
    }
}

fn level_of(number: i64) -> Level {
    match number {
        ..10 => Level::Audit,
        10..20 => Level::Debug,
        20..30 => Level::Info,
        30..40 => Level::Warning,
        40.. => Level::Error,
    }
}

/// Which leases are asked for. Empty: all, also those that ran out.
#[derive(Debug, Clone, Default)]
pub struct LeaseFilter {
    pub subnet: Option<SubnetId>,
    pub macs: Vec<MacAddr>,
    /// Only those that still run then.
    pub at: Option<Timestamp>,
}

/// Leases by subnet and address.
pub fn leases(db: &mut Db, filter: &LeaseFilter) -> QueryResult<Vec<Lease>> {
    let mut query = leases::table.into_boxed();
    if let Some(subnet) = filter.subnet {
        query = query.filter(leases::subnet.eq(subnet.0));
    }
    if !filter.macs.is_empty() {
        query = query.filter(leases::mac.eq_any(filter.macs.iter().map(MacAddr::to_string).collect::<Vec<_>>()));
    }
    if let Some(at) = filter.at {
        query = query.filter(leases::expires.gt(at.0));
    }
    let rows: Vec<LeaseRow> = query.load(db)?;
    let mut leases = rows.into_iter().map(lease).collect::<QueryResult<Vec<_>>>()?;
    // As text, .10 would come before .9.
    leases.sort_by_key(|lease| (lease.subnet, lease.ip));
    Ok(leases)
}

fn lease(row: LeaseRow) -> QueryResult<Lease> {
    Ok(Lease {
        subnet: SubnetId(row.subnet),
        ip: parsed::<Ipv4Addr>("leases.ip", &row.ip)?,
        mac: parsed("leases.mac", &row.mac)?,
        hostname: row.hostname,
        granted: Timestamp(row.granted),
        expires: Timestamp(row.expires),
    })
}

/// The sealed values of that owner, by name.
pub(crate) fn sealed(db: &mut Db, owner: &str) -> QueryResult<Vec<(String, Vec<u8>)>> {
    secrets::table
        .filter(secrets::owner.eq(owner))
        .select((secrets::name, secrets::sealed))
        .order(secrets::name)
        .load(db)
}

/// A column's text as its type; what does not parse names its column.
fn parsed<T>(column: &str, text: &str) -> QueryResult<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|err| diesel::result::Error::DeserializationError(format!("{column}: {err}").into()))
}

/// A column of JSON as its type.
fn read_json<T: DeserializeOwned>(column: &str, text: &str) -> QueryResult<T> {
    serde_json::from_str(text)
        .map_err(|err| diesel::result::Error::DeserializationError(format!("{column}: {err}").into()))
}

/// A column with a unit variant's name as that variant.
fn read_word<T: DeserializeOwned>(column: &str, text: &str) -> QueryResult<T> {
    T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text))
        .map_err(|err| diesel::result::Error::DeserializationError(format!("{column}: {err}").into()))
}

/// A column that holds no negative numbers.
fn unsigned<T: TryFrom<i64> + Default>(n: i64) -> T {
    T::try_from(n).unwrap_or_default()
}
