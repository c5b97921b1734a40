//! What stands in which table, and the way from values to rows and back. Every row but a report is sealed.

use actors::errand::{Errand, Progress};
use schema::{
    codec,
    dns::RecordKey,
    id::SystemId,
    messages::link::{Order, PlanUpdate, Rows, ToRack},
    plan::{Plan, Reservation},
};

use super::{Definition, State, StateError, unreadable};

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// "last": the number of the last report.
    Meta,
    /// "head": the generation. "part/…": settings, subnets, boot files.
    Plan,
    /// By MAC and subnet.
    Reservations,
    /// By machine.
    Tickets,
    /// By name.
    Zones,
    /// By name and type.
    Records,
    /// By machine.
    Errands,
    /// By number, big endian.
    Outbox,
}

/// A change of one row, or of a whole table.
#[derive(Debug)]
pub(super) enum Op {
    Put {
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Remove {
        table: Table,
        key: Vec<u8>,
    },
    /// Every row whose key begins so.
    RemovePrefix {
        table: Table,
        prefix: Vec<u8>,
    },
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Plan => "plan",
            Self::Reservations => "reservations",
            Self::Tickets => "tickets",
            Self::Zones => "zones",
            Self::Records => "records",
            Self::Errands => "errands",
            Self::Outbox => "outbox",
        }
    }

    pub(super) fn definition(self) -> Definition {
        Definition::new(self.name())
    }
}

const HEAD: &[u8] = b"head";

pub(super) fn plan(state: &State) -> Result<Plan, StateError> {
    let mut plan = Plan::default();
    for table in [Table::Plan, Table::Reservations, Table::Tickets, Table::Zones, Table::Records] {
        state.scan(table, None, |key, row| {
            let plain = state.unseal(table, key, row)?;
            let update = match codec::decode::<ToRack>(plain.get(codec::PREFIX..).unwrap_or_default()) {
                Ok((_, ToRack::Plan(update))) => update,
                Ok(_) => return Err(StateError::Row { table: table.name(), why: "it holds no plan".into() }),
                Err(e) => return Err(unreadable(table, &e)),
            };
            if key == HEAD {
                plan.generation = update.generation;
            }
            replace(&mut plan.settings, update.settings);
            replace(&mut plan.subnets, update.subnets);
            replace(&mut plan.boot_files, update.boot_files);
            plan.reservations.extend(update.reservations.put);
            plan.tickets.extend(update.tickets.put);
            plan.zones.extend(update.zones.put);
            plan.records.extend(update.records.put);
            Ok(true)
        })?;
    }
    Ok(plan)
}

fn replace<T>(old: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *old = new;
    }
}

/// The rows of an update: what did not change is not written.
pub(super) fn of_update(state: &State, update: &PlanUpdate) -> Result<Vec<Op>, StateError> {
    let mut ops = Vec::new();
    let empty = || PlanUpdate::empty(None, update.generation);
    let mut part = |key: &[u8], part: PlanUpdate| -> Result<(), StateError> {
        ops.push(state.put(Table::Plan, key, &frame(Table::Plan, part)?)?);
        Ok(())
    };
    part(HEAD, empty())?;
    if let Some(settings) = update.settings.clone() {
        part(b"part/settings", PlanUpdate { settings: Some(settings), ..empty() })?;
    }
    if let Some(subnets) = update.subnets.clone() {
        part(b"part/subnets", PlanUpdate { subnets: Some(subnets), ..empty() })?;
    }
    if let Some(boot_files) = update.boot_files.clone() {
        part(b"part/boot_files", PlanUpdate { boot_files: Some(boot_files), ..empty() })?;
    }
    let whole = update.base.is_none();
    let mut emptied = |table, replace| {
        if whole || replace {
            ops.push(Op::RemovePrefix { table, prefix: Vec::new() });
        }
    };
    emptied(Table::Reservations, update.reservations.replace);
    emptied(Table::Tickets, update.tickets.replace);
    emptied(Table::Zones, update.zones.replace);
    emptied(Table::Records, update.records.replace);
    let gone = |table, key: Vec<u8>| Op::Remove { table, key };
    let macs = update.reservations.remove.iter();
    ops.extend(macs.map(|mac| Op::RemovePrefix { table: Table::Reservations, prefix: mac.0.into() }));
    ops.extend(update.tickets.remove.iter().map(|machine| gone(Table::Tickets, machine.as_str().into())));
    ops.extend(update.zones.remove.iter().map(|name| gone(Table::Zones, name.as_str().into())));
    ops.extend(update.records.remove.iter().map(|key| gone(Table::Records, record_key(key))));
    let mut put = |table, key: &[u8], row| {
        ops.push(state.put(table, key, &frame(table, row)?)?);
        Ok::<_, StateError>(())
    };
    for reservation in &update.reservations.put {
        let key = reservation_key(reservation);
        put(Table::Reservations, &key, PlanUpdate { reservations: row(reservation), ..empty() })?;
    }
    for ticket in &update.tickets.put {
        put(Table::Tickets, ticket.machine.as_str().as_bytes(), PlanUpdate { tickets: row(ticket), ..empty() })?;
    }
    for zone in &update.zones.put {
        put(Table::Zones, zone.name.as_str().as_bytes(), PlanUpdate { zones: row(zone), ..empty() })?;
    }
    for set in &update.records.put {
        put(Table::Records, &record_key(&set.key()), PlanUpdate { records: row(set), ..empty() })?;
    }
    Ok(ops)
}

/// One row, as it stands in its table.
fn row<T: Clone, K>(value: &T) -> Rows<T, K> {
    Rows { put: vec![value.clone()], ..Rows::default() }
}

fn record_key(key: &RecordKey) -> Vec<u8> {
    [key.name.as_str().as_bytes(), &[0], &key.rtype.to_be_bytes()].concat()
}

fn reservation_key(reservation: &Reservation) -> Vec<u8> {
    [&reservation.mac.0[..], &reservation.subnet.0.to_be_bytes()].concat()
}

fn frame(table: Table, update: PlanUpdate) -> Result<Vec<u8>, StateError> {
    encode(table, &ToRack::Plan(Box::new(update)))
}

fn encode(table: Table, message: &ToRack) -> Result<Vec<u8>, StateError> {
    codec::encode(message, codec::TraceParent::default(), 0).map_err(|e| unreadable(table, &e))
}

/// An errand's row: the length of its progress (u32, big endian), the progress as JSON, the order's frame if there is one.
pub(super) fn of_errand(state: &State, errand: &Errand) -> Result<Op, StateError> {
    let wrong = |why: String| StateError::Row { table: Table::Errands.name(), why };
    let progress = serde_json::to_vec(&errand.progress).map_err(|e| wrong(e.to_string()))?;
    let mut plain = u32::try_from(progress.len()).map_err(|e| wrong(e.to_string()))?.to_be_bytes().to_vec();
    plain.extend_from_slice(&progress);
    if let Some(order) = &errand.order {
        plain.extend(encode(Table::Errands, &ToRack::Order(Order::clone(order)))?);
    }
    state.put(Table::Errands, errand.machine.as_str().as_bytes(), &plain)
}

pub(super) fn errands(state: &State) -> Result<Vec<Errand>, StateError> {
    let table = Table::Errands;
    let wrong = |why: String| StateError::Row { table: table.name(), why };
    let mut errands = Vec::new();
    state.scan(table, None, |key, row| {
        let plain = state.unseal(table, key, row)?;
        let (len, rest) = plain.split_first_chunk::<4>().ok_or_else(|| wrong("it is empty".into()))?;
        let len = u32::from_be_bytes(*len) as usize;
        let (progress, frame) = rest.split_at_checked(len).ok_or_else(|| wrong("it is cut short".into()))?;
        let progress: Progress = serde_json::from_slice(progress).map_err(|e| wrong(e.to_string()))?;
        let order = match frame.get(codec::PREFIX..) {
            None => None,
            Some(frame) => match codec::decode::<ToRack>(frame).map_err(|e| unreadable(table, &e))? {
                (_, ToRack::Order(order)) => Some(order),
                _ => return Err(wrong("it holds no order".into())),
            },
        };
        let machine = std::str::from_utf8(key).ok().and_then(|text| text.parse::<SystemId>().ok());
        let machine = machine.ok_or_else(|| wrong("its key is no system id".into()))?;
        errands.push(Errand::restored(machine, order, progress));
        Ok(true)
    })?;
    Ok(errands)
}
