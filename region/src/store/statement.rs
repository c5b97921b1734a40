//! PostgreSQL's statements over many rows: an array for each column, so that one text, parsed and planned once, takes any number.

use diesel::{
    QueryResult, RunQueryDsl,
    pg::{Pg, PgConnection},
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Binary, Bool, Nullable, Text},
};
use schema::tables::columns::{Column, Row};

/// `HEAD unnest(COLUMNS) TAIL`. Where it returns something, that is one number a row.
pub(super) struct Statement<'a> {
    head: String,
    columns: Vec<Column<'a>>,
    tail: String,
}

impl<'a> Statement<'a> {
    pub(super) fn new(head: impl Into<String>, columns: Vec<Column<'a>>, tail: impl Into<String>) -> Self {
        Self { head: head.into(), columns, tail: tail.into() }
    }

    /// Inserts the rows; `tail` may say what to do where they are there already.
    pub(super) fn insert<R: Row>(rows: &'a [R], tail: impl Into<String>) -> Self {
        let names = R::NAMES.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        Self::new(format!("INSERT INTO {} ({names}) SELECT * FROM ", quoted(R::TABLE)), R::columns(rows), tail)
    }

    /// Inserts the rows, or writes them over those with the same `keys`, but for the columns `kept`.
    /// No two of them may have the same keys.
    pub(super) fn upsert<R: Row>(rows: &'a [R], keys: &[&str], kept: &[&str]) -> Self {
        let set = R::NAMES.iter().filter(|name| !keys.contains(name) && !kept.contains(name));
        let set = set.map(|name| format!("{0} = excluded.{0}", quoted(name))).collect::<Vec<_>>().join(", ");
        let keys = keys.iter().map(|key| quoted(key)).collect::<Vec<_>>().join(", ");
        Self::insert(rows, format!(" ON CONFLICT ({keys}) DO UPDATE SET {set}"))
    }

    /// Only where that holds.
    pub(super) fn only(mut self, condition: &str) -> Self {
        self.tail.push_str(" WHERE ");
        self.tail.push_str(condition);
        self
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

impl QueryId for Statement<'_> {
    type QueryId = ();

    // Prepared statements are found by their text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = BigInt;
}

impl RunQueryDsl<PgConnection> for Statement<'_> {}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(&self.head);
        for (n, column) in self.columns.iter().enumerate() {
            out.push_sql(if n == 0 { "unnest(" } else { ", " });
            match column {
                Column::Numbers(numbers) => out.push_bind_param::<Array<Nullable<BigInt>>, _>(numbers)?,
                Column::Texts(texts) => out.push_bind_param::<Array<Nullable<Text>>, _>(texts)?,
                Column::Flags(flags) => out.push_bind_param::<Array<Bool>, _>(flags)?,
                Column::Bytes(bytes) => out.push_bind_param::<Array<Nullable<Binary>>, _>(bytes)?,
            }
        }
        out.push_sql(")");
        out.push_sql(&self.tail);
        Ok(())
    }
}
