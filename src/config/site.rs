//! The site's file: what jobs on this cluster need, said once by the people who run it.
//!
//! ```toml
//! default_partition = "cpu"
//! accounts = ["bio", "plants"]
//! modules = ["openmpi/4.1", "cuda/12.4"]
//! container = ["apptainer", "exec", "--nv", "/images/harvest.sif"]
//! program = "harvest"           # its name inside of the container
//! mpi = "pmix"
//! most_nodes = 16
//! most_time = "2-00:00:00"
//!
//! [environment]
//! OMPI_MCA_btl_tcp_if_include = "ib0"
//!
//! [partitions.cpu]
//! description = "for scans and small trainings"
//!
//! [partitions.gpu]
//! description = "4 A100 each, for training"
//! gpus_per_node = 4
//! most_nodes = 8
//! most_time = "1-00:00:00"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::suggest::nearest;

/// Where the file is looked for if nobody names another.
const USUAL: &str = "/etc/harvest/site.toml";

/// Names another.
const VARIABLE: &str = "HARVEST_SITE";

/// What jobs on this cluster need, and how much they may ask for. Empty: nothing is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// Where jobs go that name none.
    pub default_partition: Option<String>,
    /// Groups of nodes, by name; any may be named if none is listed.
    pub partitions: BTreeMap<String, Partition>,
    /// Accounts that jobs may be charged to, the usual one first; any may be named if none is listed.
    pub accounts: Vec<String>,
    /// Loaded by each job, in this order, with the command `module`.
    pub modules: Vec<String>,
    /// Words before the program's own, which start it inside of a container.
    pub container: Vec<String>,
    /// The program as jobs are to call it; unset, the one that plans them.
    pub program: Option<String>,
    /// How ranks on processors find each other: `pmix`, or `pmi2` for MPICH.
    pub mpi: Option<String>,
    /// Most nodes of a job.
    pub most_nodes: Option<u32>,
    /// Most time of a job, in Slurm's words.
    pub most_time: Option<String>,
    /// Variables of each job.
    pub environment: BTreeMap<String, String>,
}

/// A group of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partition {
    /// What it is for, in words for people.
    pub description: String,
    /// Most nodes of a job.
    pub most_nodes: Option<u32>,
    /// Most time of a job, in Slurm's words.
    pub most_time: Option<String>,
    /// GPUs of each node.
    pub gpus_per_node: Option<u32>,
    /// Processors of each node.
    pub cpus_per_node: Option<u32>,
}

impl Site {
    /// The file that somebody names, that `HARVEST_SITE` names, or `/etc/harvest/site.toml`, which need not be there.
    ///
    /// # Errors
    /// If the file named is not there, or makes no sense.
    pub fn find(named: Option<&Path>) -> Result<Self, ConfigError> {
        let variable = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        match named.map(Path::to_path_buf).or_else(variable) {
            Some(path) => Self::read(&path),
            None if Path::new(USUAL).exists() => Self::read(Path::new(USUAL)),
            None => Ok(Self::default()),
        }
    }

    /// Reads a site's file.
    ///
    /// # Errors
    /// With the line, and the word probably meant.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let at = |offset: usize| Origin::File { path: path.to_path_buf(), line: line_of(text, offset) };
        let site: Self = toml::from_str(text).map_err(|error| misread(&error, at))?;
        site.check().map_err(|(key, reason)| ConfigError::Invalid {
            origin: at(offset_of(text, &key)),
            key: key.join("."),
            reason,
        })?;
        Ok(site)
    }

    /// The first value that no job could use: its key, and what is wrong with it.
    fn check(&self) -> Result<(), (Vec<String>, String)> {
        let wrong = |key: &[&str], reason: String| {
            Err((key.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), reason))
        };
        if let Some(name) = &self.default_partition
            && !self.partitions.is_empty()
            && !self.partitions.contains_key(name)
        {
            let hint = nearest(name, self.partitions.keys().map(String::as_str));
            let hint = hint.map_or(String::new(), |hint| format!("; did you mean `{hint}`?"));
            return wrong(
                &["default_partition"],
                format!("is `{name}`, which is not among the partitions below{hint}"),
            );
        }
        let limits = |key: &[&str], nodes: Option<u32>, time: Option<&String>| {
            let inside = |last| [key, &[last]].concat();
            if nodes == Some(0) {
                return wrong(&inside("most_nodes"), "is 0; it must be 1 or more".into());
            }
            match time.filter(|time| minutes(time).is_none()) {
                Some(time) => wrong(&inside("most_time"), format!("is `{time}`; {TIMES}")),
                None => Ok(()),
            }
        };
        limits(&[], self.most_nodes, self.most_time.as_ref())?;
        for (name, partition) in &self.partitions {
            limits(&["partitions", name], partition.most_nodes, partition.most_time.as_ref())?;
        }
        for name in self.environment.keys() {
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !plain || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                let reason =
                    format!("has the variable `{name}`; names are of letters, digits and underscores");
                return wrong(&["environment"], reason);
            }
        }
        Ok(())
    }
}

/// How times are written.
pub const TIMES: &str = "write it as Slurm does: `90` minutes, `4:30:00` hours, minutes and seconds, or `2-12:00:00` with days before";

/// Minutes of a time in Slurm's words: `MM`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`; seconds count up.
pub fn minutes(time: &str) -> Option<u64> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 7 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (days, rest) = match time.trim().split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, time.trim()),
    };
    let parts: Vec<u64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let seconds = match (days, &parts[..]) {
        (None, [minutes]) => minutes * 60,
        (None, [minutes, seconds]) => minutes * 60 + seconds,
        (None, [hours, minutes, seconds]) => (hours * 60 + minutes) * 60 + seconds,
        (Some(days), [hours, rest @ ..]) if rest.len() <= 2 => {
            let minutes = rest.first().copied().unwrap_or(0);
            ((days * 24 + hours) * 60 + minutes) * 60 + rest.get(1).copied().unwrap_or(0)
        }
        _ => return None,
    };
    (seconds > 0).then(|| seconds.div_ceil(60))
}

/// The parser's words as ours, with the line and the key probably meant.
fn misread(error: &toml::de::Error, at: impl Fn(usize) -> Origin) -> ConfigError {
    let origin = at(error.span().map_or(0, |span| span.start));
    let message = error.message().trim().replace('\n', ", ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match (message.starts_with("unknown field"), &quoted[..]) {
        (true, [key, known @ ..]) => ConfigError::UnknownKey {
            origin,
            key: (*key).to_owned(),
            hint: nearest(key, known.iter().copied()).map(str::to_owned),
        },
        _ => ConfigError::Syntax { origin, message },
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Where `key` stands, or the nearest table around it.
fn offset_of(text: &str, key: &[String]) -> usize {
    let Ok(parsed) = DeTable::parse(text) else { return 0 };
    let (mut table, mut offset) = (parsed.get_ref(), 0);
    for part in key {
        let found = table.iter().find(|(name, _)| name.get_ref().as_ref() == part);
        let Some((name, value)) = found else { break };
        offset = name.span().start;
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        Site::parse(text, Path::new("site.toml")).expect_err(text).to_string()
    }

    #[test]
    fn the_example_is_understood() {
        let source = include_str!("site.rs");
        let example = source.split("//! ```").nth(1).expect("there is one");
        let lines: Vec<&str> =
            example.lines().skip(1).map(|line| line.trim_start_matches("//!").trim()).collect();
        let site = Site::parse(&lines.join("\n"), Path::new("site.toml")).expect("it makes sense");
        assert_eq!(site.default_partition.as_deref(), Some("cpu"));
        assert_eq!(site.container.len(), 4);
        assert_eq!(site.partitions["gpu"].gpus_per_node, Some(4));
    }

    #[test]
    fn mistakes_name_their_line_and_the_word_meant() {
        for (text, words) in [
            (
                "mpi = \"pmix\"\ncontainr = []",
                "site.toml:2: unknown key `containr`; did you mean `container`?",
            ),
            (
                "[partitions.gpu]\ngpu_per_node = 4\n",
                "site.toml:2: unknown key `gpu_per_node`; did you mean `gpus_per_node`?",
            ),
            (
                "\n[partitions.gpu]\nmost_time = \"two days\"",
                "site.toml:3: `partitions.gpu.most_time` is `two days`; write it as Slurm does",
            ),
            ("default_partition = \"gpus\"\n[partitions.gpu]", "site.toml:1: `default_partition` is `gpus`"),
            ("most_nodes = 0", "site.toml:1: `most_nodes` is 0; it must be 1 or more"),
            ("[environment]\n\"A B\" = \"\"", "site.toml:1: `environment` has the variable `A B`"),
            ("[partitions.gpu\n", "site.toml:1: "),
            ("accounts = \"bio\"", "site.toml:1: invalid type: string \"bio\""),
        ] {
            let complaint = complaint(text);
            assert!(complaint.starts_with(words), "{text}: {complaint}");
        }
    }

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        for (text, wanted) in [
            ("90", Some(90)),
            ("90:30", Some(91)),
            ("4:30:00", Some(270)),
            ("2-12", Some(3600)),
            ("1-00:30", Some(1470)),
            ("1-12:00:01", Some(2161)),
            ("0", None),
            ("", None),
            ("2 hours", None),
            ("1:2:3:4", None),
            ("-5", None),
            ("1-1:2:3:4", None),
        ] {
            assert_eq!(minutes(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let error = Site::find(Some(Path::new("/no/such/site.toml"))).expect_err("it is not there");
        assert!(error.to_string().contains("/no/such/site.toml"), "{error}");
    }
}
