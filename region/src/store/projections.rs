//! The read model: how a step's projections become rows. Reading them back is in the queries.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ::actors::{core::TraceId, machine::Machine, reach::Reached};
use diesel::{QueryResult, prelude::*, upsert::excluded};
use schema::{
    id::{RackId, ReportSeq, SubnetId, SystemId},
    plan::Lease,
    projection::{EventLine, Projection},
    tables::*,
    time::Timestamp,
};
use serde::Serialize;

use super::{Change, Db, backend::each, statement::Statement};

mod hardware;
mod reach;
mod scripts;

/// The changes of one commit, with those gathered that many steps have in common.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    machines: BTreeMap<SystemId, MachineRow>,
    /// In order, after the machines' rows.
    others: Vec<Other<'a>>,
    /// After the others: a result's row is made when its script is chosen.
    results: Vec<scripts::Move<'a>>,
    leases: BTreeMap<(SubnetId, Ipv4Addr), &'a Lease>,
    events: Vec<NewEventRow>,
    seen: BTreeMap<RackId, ReportSeq>,
}

enum Other<'a> {
    /// A machine's first step: its interfaces are those its maker named.
    Born(&'a Machine),
    Deleted(SystemId),
    Of(SystemId, &'a Projection),
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
                Change::Of(id, projection) => match scripts::Move::of(projection) {
                    Some(of) => self.results.push(of),
                    None => self.others.push(Other::Of(*id, projection)),
                },
                Change::Event(id, line) => self.events.push(event_row(*id, line, trace)),
                Change::Lease(lease) => {
                    let newest = self.leases.entry((lease.subnet, lease.ip)).or_insert(lease);
                    if lease.granted >= newest.granted {
                        *newest = lease;
                    }
                }
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
                Other::Secret(row) => put_secret(db, &row)?,
                Other::Reached(learned) => reach::put(db, learned)?,
                Other::Unreached(learned) => reach::forget(db, learned)?,
                Other::SecretsGone { owner, prefix } => drop_secrets(db, owner, prefix)?,
            }
        }
        scripts::write(db, &self.results)?;
        put_leases(db, &self.leases.into_values().map(lease_row).collect::<Vec<_>>())?;
        insert!(db, events::table, self.events);
        let seen = self.seen.into_iter().map(|(rack, seq)| SeenRow { rack: rack.to_string(), seq: number(seq.0) });
        put_seen(db, &seen.collect::<Vec<_>>())
    }
}

/// Inserts all rows: in one statement where that saves round trips, one by one where a statement is a call.
macro_rules! insert {
    ($db:expr, $table:expr, $rows:expr) => {
        match (&mut *$db, &$rows[..]) {
            ($crate::store::Db::Sqlite(conn), rows) => {
                for row in rows {
                    diesel::insert_into($table).values(row).execute(conn)?;
                }
            }
            (_, []) => {}
            ($crate::store::Db::Postgres(conn), rows) => {
                $crate::store::statement::Statement::insert(rows, "").execute(conn)?;
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
    let conn = match db {
        Db::Postgres(_) if rows.is_empty() => return Ok(()),
        Db::Postgres(conn) => {
            return Statement::upsert(rows, &["system_id"], &["created"]).execute(conn).map(drop);
        }
        Db::Sqlite(conn) => conn,
    };
    for row in rows {
        diesel::insert_into(machines::table)
            .values(row)
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
            .execute(conn)?;
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
        Projection::Event(_) | Projection::ScriptResult { .. } => Ok(()),
        Projection::ScriptsChosen { attempt, at, scripts } => scripts::choose(db, id, *attempt, *at, scripts),
        Projection::Hardware(report) => hardware::put(db, id, report),
        Projection::Neighbours(neighbours) => hardware::put_neighbours(db, id, neighbours),
    }
}

fn lease_row(lease: &Lease) -> LeaseRow {
    LeaseRow {
        subnet: lease.subnet.0,
        ip: lease.ip.to_string(),
        mac: lease.mac.to_string(),
        hostname: lease.hostname.as_deref().map(text),
        granted: lease.granted.0,
        expires: lease.expires.0,
    }
}

/// The lease that was granted last stands, whichever rack's report comes first.
fn put_leases(db: &mut Db, rows: &[LeaseRow]) -> QueryResult<()> {
    use diesel::query_dsl::methods::FilterDsl;
    let conn = match db {
        Db::Postgres(_) if rows.is_empty() => return Ok(()),
        Db::Postgres(conn) => {
            let upsert = Statement::upsert(rows, &["subnet", "ip"], &[]).only("excluded.granted >= leases.granted");
            return upsert.execute(conn).map(drop);
        }
        Db::Sqlite(conn) => conn,
    };
    for row in rows {
        let upsert = diesel::insert_into(leases::table)
            .values(row)
            .on_conflict((leases::subnet, leases::ip))
            .do_update()
            .set(row);
        FilterDsl::filter(upsert, excluded(leases::granted).ge(leases::granted)).execute(conn)?;
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

/// The numbers only rise.
fn put_seen(db: &mut Db, rows: &[SeenRow]) -> QueryResult<()> {
    use diesel::query_dsl::methods::FilterDsl;
    let conn = match db {
        Db::Postgres(_) if rows.is_empty() => return Ok(()),
        Db::Postgres(conn) => {
            let upsert = Statement::upsert(rows, &["rack"], &[]).only("excluded.seq > rack_reports.seq");
            return upsert.execute(conn).map(drop);
        }
        Db::Sqlite(conn) => conn,
    };
    for row in rows {
        let upsert = diesel::insert_into(rack_reports::table)
            .values(row)
            .on_conflict(rack_reports::rack)
            .do_update()
            .set(rack_reports::seq.eq(excluded(rack_reports::seq)));
        FilterDsl::filter(upsert, excluded(rack_reports::seq).gt(rack_reports::seq)).execute(conn)?;
    }
    Ok(())
}
