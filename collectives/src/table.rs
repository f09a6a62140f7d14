//! What each rank brings along, side by side.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a rank is and works on. Version, configuration and data must be the same on every rank.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passport {
    /// Its node.
    pub host: String,
    /// What it computes on.
    pub device: String,
    /// The driver of that device.
    pub driver: String,
    /// The version of the program.
    pub version: String,
    /// The hash of its configuration.
    pub config: String,
    /// The hash of its data.
    pub data: String,
}

/// The name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// All ranks in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankTable(pub Vec<Passport>);

/// A column of the table.
struct Column {
    name: &'static str,
    value: fn(&Passport) -> &str,
    must_agree: bool,
}

const COLUMNS: [Column; 6] = [
    Column { name: "host", value: |row| &row.host, must_agree: false },
    Column { name: "device", value: |row| &row.device, must_agree: false },
    Column { name: "driver", value: |row| &row.driver, must_agree: false },
    Column { name: "version", value: |row| &row.version, must_agree: true },
    Column { name: "config", value: |row| &row.config, must_agree: true },
    Column { name: "data", value: |row| &row.data, must_agree: true },
];

impl RankTable {
    /// What should be the same on every rank, and is not.
    pub fn differences(&self) -> Vec<&'static str> {
        let differs = |column: &&Column| {
            column.must_agree
                && self.0.windows(2).any(|two| (column.value)(&two[0]) != (column.value)(&two[1]))
        };
        COLUMNS.iter().filter(differs).map(|column| column.name).collect()
    }

    /// The node of a rank, as far as it is known.
    pub fn host(&self, rank: usize) -> &str {
        self.0.get(rank).map_or("unknown", |row| &row.host)
    }
}

impl fmt::Display for RankTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differences = self.differences();
        let head = COLUMNS.iter().map(|column| match differences.contains(&column.name) {
            true => format!("{} (differs)", column.name),
            false => column.name.to_owned(),
        });
        let head = std::iter::once("rank".to_owned()).chain(head).collect();
        let rows = self.0.iter().enumerate().map(|(rank, row)| {
            let values = COLUMNS.iter().map(|column| (column.value)(row).to_owned());
            std::iter::once(rank.to_string()).chain(values).collect()
        });
        write_aligned(f, std::iter::once(head).chain(rows).collect())
    }
}

/// Ranks hold different values of something that must be the same on all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// What should be the same.
    pub what: String,
    /// Each rank's node and value, in the order of ranks.
    pub values: Vec<(String, String)>,
}

impl std::error::Error for Disagreement {}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ranks differ in {}", self.what)?;
        let head = ["rank", "host", &self.what].map(str::to_owned).to_vec();
        let rows = self.values.iter().enumerate();
        let rows = rows.map(|(rank, (host, value))| vec![rank.to_string(), host.clone(), value.clone()]);
        write_aligned(f, std::iter::once(head).chain(rows).collect())
    }
}

/// Columns as wide as their widest entry; those without any entry are left out.
fn write_aligned(f: &mut fmt::Formatter<'_>, rows: Vec<Vec<String>>) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let is_used = |column: &usize| rows.iter().skip(1).any(|row| !row[*column].is_empty());
    let used: Vec<_> = (0..columns).filter(is_used).map(|column| (column, width(column))).collect();
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            writeln!(f)?;
        }
        let line: Vec<_> = used.iter().map(|(column, width)| format!("{:width$}", row[*column])).collect();
        f.write_str(line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_differs() {
        let row = |host: &str, config: &str| Passport {
            host: host.to_owned(),
            version: "0.1.0".to_owned(),
            config: config.to_owned(),
            ..Passport::default()
        };
        let table = RankTable(vec![row("n01", "abc"), row("n02", "abd")]);
        assert_eq!(table.differences(), ["config"]);
        assert_eq!(
            table.to_string(),
            "rank  host  version  config (differs)\n0     n01   0.1.0    abc\n1     n02   0.1.0    abd"
        );
        // Nodes may differ.
        assert!(RankTable(vec![row("n01", "abc"), row("n02", "abc")]).differences().is_empty());
    }
}
