//! Rows as columns: each column of many rows as one array, which PostgreSQL's `unnest` makes rows of again.
//!
//! A statement over arrays has one text for any number of rows, so the server parses and plans it once.

/// A row of a table, by its columns in order.
pub trait Row: Sized {
    /// The table's name.
    const TABLE: &'static str;
    /// The columns' names.
    const NAMES: &'static [&'static str];

    /// The rows' values, an array for each of the names.
    fn columns(rows: &[Self]) -> Vec<Column<'_>>;
}

/// One column of many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column<'a> {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<&'a str>>),
    Flags(Vec<bool>),
    Bytes(Vec<Option<&'a [u8]>>),
}

/// A value as part of a column.
pub trait Field {
    /// The column of these values.
    fn column<'a>(values: impl Iterator<Item = &'a Self>) -> Column<'a>
    where
        Self: 'a;
}

macro_rules! fields {
    ($($type:ty: $column:ident by $value:expr;)*) => {$(
        impl Field for $type {
            fn column<'a>(values: impl Iterator<Item = &'a Self>) -> Column<'a> {
                Column::$column(values.map($value).collect())
            }
        }
    )*};
}

fields! {
    i64: Numbers by |n| Some(*n);
    Option<i64>: Numbers by |n| *n;
    String: Texts by |text| Some(text.as_str());
    Option<String>: Texts by |text| text.as_deref();
    bool: Flags by |flag| *flag;
    Vec<u8>: Bytes by |bytes| Some(bytes.as_slice());
    Option<Vec<u8>>: Bytes by |bytes| bytes.as_deref();
}
