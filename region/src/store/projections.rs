//! The read model: how a step's projections become rows. Reading them back is in the queries.

use std::collections::BTreeMap;

use ::actors::{core::TraceId, machine::Machine, reach::Reached};
use diesel::{QueryResult, prelude::*, upsert::excluded};
use schema::{
    id::{AttemptId, RackId, ReportSeq, ResultId, SystemId},
    messages::machine::BriefScript,
    plan::Lease,
    projection::{EventLine, Projection},
    script::{Content, ResultStatus, ScriptOutput, ScriptType},
    tables::*,
    time::Timestamp,
};
use serde::Serialize;

use super::{Change, Db, backend::each, ids, steps::allot};

mod hardware;
mod reach;

/// Script sets of a machine that are kept, counted in attempts (MAAS keeps ten).
const KEPT_ATTEMPTS: i64 = 10;
/// Rows of one PostgreSQL statement; it admits 65,535 values.
const ROWS: usize = 500;

/// The changes of one commit, with those gathered that many steps have in common.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    machines: BTreeMap<SystemId, MachineRow>,
    /// In order, after the machines' rows.
    others: Vec<Other<'a>>,
    events: Vec<NewEventRow>,
    seen: BTreeMap<RackId, ReportSeq>,
}

enum Other<'a> {
    /// A machine's first step: its interfaces are those its maker named.
    Born(&'a Machine),
    Deleted(SystemId),
    Of(SystemId, &'a Projection),
    Lease(&'a Lease),
    Secret(SecretRow),
    Reached(&'a Reached),
    Unreached(&'a Reached),
    SecretsGone {
        owner: &'a str,
        prefix: &'a str,
    },
}

impl<'a> Gathered<'a> {
    /// Adds the changes of one step, or of none. `first`: the actor had no row before.
    pub(super) fn add(&mut self, changes: &'a [Change], at: Timestamp, trace: TraceId, first: bool) {
        for change in changes {
            match change {
                Change::Machine(machine) => {
                    self.machines.insert(machine.spec.system_id, machine_row(machine, at));
                    if first {
                        self.others.push(Other::Born(machine));
                    }
                }
                Change::MachineDeleted(id) => self.others.push(Other::Deleted(*id)),
                Change::Of(id, Projection::Event(line)) => self.events.push(event_row(Some(*id), line, trace)),
                Change::Of(id, projection) => self.others.push(Other::Of(*id, projection)),
                Change::Event(id, line) => self.events.push(event_row(*id, line, trace)),
                Change::Lease(lease) => self.others.push(Other::Lease(lease)),
                Change::ReportSeen { rack, seq } => {
                    let seen = self.seen.entry(*rack).or_default();
                    *seen = (*seen).max(*seq);
                }
                Change::Secret { owner, name, sealed } => self.others.push(Other::Secret(SecretRow {
                    owner: owner.clone(),
                    name: name.clone(),
                    sealed: sealed.clone(),
                })),
                Change::Reached(learned) => self.others.push(Other::Reached(learned)),
                Change::Unreached(learned) => self.others.push(Other::Unreached(learned)),
                Change::SecretsGone { owner, prefix } => self.others.push(Other::SecretsGone { owner, prefix }),
            }
        }
    }

    /// Writes them all.
    pub(super) fn write(self, db: &mut Db) -> QueryResult<()> {
        put_machines(db, &self.machines.into_values().collect::<Vec<_>>())?;
        for other in self.others {
            match other {
                Other::Born(machine) => hardware::introduce(db, machine)?,
                Other::Deleted(id) => delete_machine(db, id)?,
                Other::Of(id, projection) => put_projection(db, id, projection)?,
                Other::Lease(lease) => put_lease(db, lease)?,
                Other::Secret(row) => put_secret(db, &row)?,
                Other::Reached(learned) => reach::put(db, learned)?,
                Other::Unreached(learned) => reach::forget(db, learned)?,
                Other::SecretsGone { owner, prefix } => drop_secrets(db, owner, prefix)?,
            }
        }
        insert!(db, events::table, &self.events);
        self.seen.into_iter().try_for_each(|(rack, seq)| put_seen(db, rack, seq))
    }
}

/// Inserts all rows: in one statement where that saves round trips, with a prepared one where it is a call.
macro_rules! insert {
    ($db:expr, $table:expr, $rows:expr) => {
        match $db {
            $crate::store::Db::Sqlite(conn) => {
                for row in $rows {
                    diesel::insert_into($table).values(row).execute(conn)?;
                }
            }
            $crate::store::Db::Postgres(conn) => {
                for rows in $rows.chunks($crate::store::projections::ROWS) {
                    diesel::insert_into($table).values(rows).execute(conn)?;
                }
            }
        }
    };
}
use insert;

/// Text as both databases take it: PostgreSQL's has no NUL.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A value as JSON text. The types that come here cannot fail.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// A unit variant's name in JSON.
pub(super) fn word(value: &impl Serialize) -> String {
    json(value).trim_matches('"').to_owned()
}

/// A number of ours as a column; what exceeds it is the column's largest.
pub(super) fn number(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

fn machine_row(machine: &Machine, at: Timestamp) -> MachineRow {
    let spec = &machine.spec;
    MachineRow {
        system_id: spec.system_id.to_string(),
        hostname: text(&spec.hostname),
        domain: text(&spec.domain),
        architecture: text(&spec.architecture),
        description: text(&spec.description),
        zone: text(&spec.zone),
        pool: text(&spec.pool),
        macs: json(&spec.macs),
        status: machine.status.number(),
        previous_status: machine.previous_status.number(),
        error: text(&machine.error),
        power_state: machine.power_state.label().into(),
        power_type: spec.power.power_type.name().into(),
        power_address: spec.power.address().map(text),
        boot_method: machine.boot_method.map(|method| word(&method)),
        attempt: machine.attempt.as_ref().map(|attempt| attempt.id.0.into()),
        step: machine.attempt.as_ref().and_then(|attempt| attempt.current_step()).map(|step| number(step.number())),
        wait: machine.wait.as_ref().map(json),
        created: at.0,
        updated: at.0,
    }
}

/// Writes machines' rows; `created` stays as it was first.
fn put_machines(db: &mut Db, rows: &[MachineRow]) -> QueryResult<()> {
    macro_rules! upsert {
        ($conn:expr, $values:expr) => {
            diesel::insert_into(machines::table)
                .values($values)
                .on_conflict(machines::system_id)
                .do_update()
                .set((
                    machines::hostname.eq(excluded(machines::hostname)),
                    machines::domain.eq(excluded(machines::domain)),
                    machines::architecture.eq(excluded(machines::architecture)),
                    machines::description.eq(excluded(machines::description)),
                    machines::zone.eq(excluded(machines::zone)),
                    machines::pool.eq(excluded(machines::pool)),
                    machines::macs.eq(excluded(machines::macs)),
                    machines::status.eq(excluded(machines::status)),
                    machines::previous_status.eq(excluded(machines::previous_status)),
                    machines::error.eq(excluded(machines::error)),
                    machines::power_state.eq(excluded(machines::power_state)),
                    machines::power_type.eq(excluded(machines::power_type)),
                    machines::power_address.eq(excluded(machines::power_address)),
                    machines::boot_method.eq(excluded(machines::boot_method)),
                    machines::attempt.eq(excluded(machines::attempt)),
                    machines::step.eq(excluded(machines::step)),
                    machines::wait.eq(excluded(machines::wait)),
                    machines::updated.eq(excluded(machines::updated)),
                ))
                .execute($conn)?
        };
    }
    match db {
        Db::Sqlite(conn) => {
            for row in rows {
                upsert!(conn, row);
            }
        }
        Db::Postgres(conn) => {
            for rows in rows.chunks(ROWS) {
                upsert!(conn, rows);
            }
        }
    }
    Ok(())
}

/// Removes the machine with all that hangs on its row, and its secrets.
fn delete_machine(db: &mut Db, id: SystemId) -> QueryResult<()> {
    diesel::delete(machines::table.find(id.as_str())).execute(db)?;
    drop_secrets(db, id.as_str(), "")
}

fn event_row(id: Option<SystemId>, line: &EventLine, trace: TraceId) -> NewEventRow {
    NewEventRow {
        system_id: id.map(|id| id.to_string()),
        at: line.at.0,
        level: super::queries::level_number(line.level),
        event_type: text(&line.event_type),
        description: text(&line.description),
        username: line.by.as_deref().map(text),
        trace: (trace != TraceId::default()).then(|| trace.to_string()),
    }
}

fn put_projection(db: &mut Db, id: SystemId, projection: &Projection) -> QueryResult<()> {
    match projection {
        // Gathered before.
        Projection::Event(_) => Ok(()),
        Projection::ScriptsChosen { attempt, at, scripts } => put_scripts(db, id, *attempt, *at, scripts),
        Projection::ScriptResult { result, status, at, exit_status, runtime_ms, output } => {
            put_result(db, *result, *status, *at, *exit_status, *runtime_ms)?;
            output.as_ref().map_or(Ok(()), |output| put_outputs(db, *result, output))
        }
        Projection::Hardware(report) => hardware::put(db, id, report),
        Projection::Neighbours(neighbours) => hardware::put_neighbours(db, id, neighbours),
    }
}

/// A script set for each type of script of the attempt; sets of attempts long gone make room.
fn put_scripts(
    db: &mut Db,
    id: SystemId,
    attempt: AttemptId,
    at: Timestamp,
    scripts: &[BriefScript],
) -> QueryResult<()> {
    for script_type in [ScriptType::Commissioning, ScriptType::Testing] {
        let chosen: Vec<&BriefScript> = scripts.iter().filter(|s| s.script_type == script_type).collect();
        if chosen.is_empty() {
            continue;
        }
        let set = ScriptSetRow {
            id: allot(db, ids::SCRIPT_SET, 1)?,
            system_id: id.to_string(),
            attempt: attempt.0.into(),
            script_type: word(&script_type),
            at: at.0,
        };
        diesel::insert_into(script_sets::table).values(&set).execute(db)?;
        let rows: Vec<_> = chosen.into_iter().map(|script| pending(set.id, script)).collect();
        insert!(db, script_results::table, &rows);
    }
    let old = i64::from(attempt.0) - KEPT_ATTEMPTS;
    let sets = script_sets::table.filter(script_sets::system_id.eq(id.as_str())).filter(script_sets::attempt.le(old));
    diesel::delete(sets).execute(db)?;
    Ok(())
}

fn pending(script_set: i64, script: &BriefScript) -> ScriptResultRow {
    ScriptResultRow {
        id: script.result.0,
        script_set,
        name: text(&script.name),
        timeout_s: script.timeout_s.into(),
        may_reboot: script.may_reboot,
        status: ResultStatus::Pending.number(),
        started: None,
        ended: None,
        exit_status: None,
        runtime_ms: None,
    }
}

/// Moves a result's row. A missing start is the end less the run time, as in MAAS.
fn put_result(
    db: &mut Db,
    result: ResultId,
    status: ResultStatus,
    at: Timestamp,
    exit_status: Option<i32>,
    runtime_ms: Option<u64>,
) -> QueryResult<()> {
    let row: Option<ScriptResultRow> = script_results::table.find(result.0).first(db).optional()?;
    let Some(mut row) = row else {
        tracing::warn!("A result for script run {result}, which is not in the database, was dropped");
        return Ok(());
    };
    row.status = status.number();
    row.exit_status = exit_status.map(i64::from).or(row.exit_status);
    row.runtime_ms = runtime_ms.map(number).or(row.runtime_ms);
    if status.ended() {
        row.ended = Some(at.0);
        row.started = row.started.or(row.runtime_ms.map(|ms| at.0.saturating_sub(ms.saturating_mul(1_000))));
    } else if status != ResultStatus::Pending {
        row.started = row.started.or(Some(at.0));
    }
    diesel::update(script_results::table.find(result.0)).set(&row).execute(db)?;
    Ok(())
}

fn put_outputs(db: &mut Db, result: ResultId, output: &ScriptOutput) -> QueryResult<()> {
    let streams = [
        ("combined", &output.combined),
        ("stdout", &output.stdout),
        ("stderr", &output.stderr),
        ("result", &output.result),
    ];
    let known: i64 = script_results::table.filter(script_results::id.eq(result.0)).count().get_result(db)?;
    let rows: Vec<_> = streams
        .into_iter()
        .filter_map(|(stream, content)| Some(output_row(result, stream, content.as_ref()?)))
        .filter(|_| known > 0)
        .collect();
    diesel::delete(script_outputs::table.filter(script_outputs::result.eq(result.0))).execute(db)?;
    insert!(db, script_outputs::table, &rows);
    Ok(())
}

fn output_row(result: ResultId, stream: &str, content: &Content) -> ScriptOutputRow {
    ScriptOutputRow {
        result: result.0,
        stream: stream.into(),
        sha256: content.body.sha256.to_string(),
        len: number(content.body.len),
        content: content.inline.clone(),
    }
}

/// The lease that was granted last stands, whichever rack's report comes first.
fn put_lease(db: &mut Db, lease: &Lease) -> QueryResult<()> {
    let row = LeaseRow {
        subnet: lease.subnet.0,
        ip: lease.ip.to_string(),
        mac: lease.mac.to_string(),
        hostname: lease.hostname.as_deref().map(text),
        granted: lease.granted.0,
        expires: lease.expires.0,
    };
    let stored: Option<i64> = leases::table.find((row.subnet, &row.ip)).select(leases::granted).first(db).optional()?;
    match stored {
        Some(granted) if granted > row.granted => {}
        Some(_) => {
            diesel::update(leases::table.find((row.subnet, &row.ip))).set(&row).execute(db)?;
        }
        None => {
            diesel::insert_into(leases::table).values(&row).execute(db)?;
        }
    }
    Ok(())
}

fn put_secret(db: &mut Db, row: &SecretRow) -> QueryResult<()> {
    each!(db, conn => diesel::insert_into(secrets::table)
        .values(row)
        .on_conflict((secrets::owner, secrets::name))
        .do_update()
        .set(secrets::sealed.eq(excluded(secrets::sealed)))
        .execute(conn)?);
    Ok(())
}

fn drop_secrets(db: &mut Db, owner: &str, prefix: &str) -> QueryResult<()> {
    let names: Vec<String> = secrets::table.filter(secrets::owner.eq(owner)).select(secrets::name).load(db)?;
    let gone: Vec<String> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
    diesel::delete(secrets::table.filter(secrets::owner.eq(owner)).filter(secrets::name.eq_any(gone))).execute(db)?;
    Ok(())
}

fn put_seen(db: &mut Db, rack: RackId, seq: ReportSeq) -> QueryResult<()> {
    use diesel::query_dsl::methods::FilterDsl;
    each!(db, conn => {
        let upsert = diesel::insert_into(rack_reports::table)
            .values((rack_reports::rack.eq(rack.as_str()), rack_reports::seq.eq(number(seq.0))))
            .on_conflict(rack_reports::rack)
            .do_update()
            .set(rack_reports::seq.eq(excluded(rack_reports::seq)));
        FilterDsl::filter(upsert, excluded(rack_reports::seq).gt(rack_reports::seq)).execute(conn)?;
    });
    Ok(())
}
