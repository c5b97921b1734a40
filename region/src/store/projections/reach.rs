//! The rows of what is known of the ways to BMCs.

use ::actors::reach::Reached;
use diesel::{QueryResult, prelude::*};
use schema::tables::*;

use crate::store::{Db, backend::each};

/// Writes what was learned over what was known.
pub(super) fn put(db: &mut Db, learned: &Reached) -> QueryResult<()> {
    let row = ReachRow {
        bmc: super::text(&learned.bmc),
        rack: learned.rack.to_string(),
        reachable: learned.reachable,
        at: learned.at.0,
        how: learned.how.clone(),
    };
    each!(db, conn => diesel::insert_into(bmc_reach::table)
        .values(&row)
        .on_conflict((bmc_reach::bmc, bmc_reach::rack))
        .do_update()
        .set(&row)
        .execute(conn)?);
    Ok(())
}

/// Takes the row out, unless something newer stands in it.
pub(super) fn forget(db: &mut Db, learned: &Reached) -> QueryResult<()> {
    let row = bmc_reach::table.find((&learned.bmc, learned.rack.as_str()));
    diesel::delete(row.filter(bmc_reach::at.le(learned.at.0))).execute(db)?;
    Ok(())
}
