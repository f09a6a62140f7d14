//! The two containers of `torch.save`: a zip archive of a pickle and its storages, and before version 1.6 a row of pickles
//! followed by the storages.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::rc::Rc;

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::Problem;
use super::numbers::{Order, contiguous};
use super::pickle::{self, Pickled, Strided, Value};
use super::state_dict::{StateDict, find};
use super::{Format, Weights};
use crate::NamedTensors;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Values in all tensors together, at most: as many as the file has bytes, so that none is made of nothing.
struct Budget {
    left: usize,
}

impl Budget {
    fn spend(&mut self, shape: &[usize]) -> Result<(), Problem> {
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
        let left = count.and_then(|count| self.left.checked_sub(count));
        self.left = left.ok_or_else(|| {
            Problem::excessive("its tensors together hold more values than the file has bytes")
        })?;
        Ok(())
    }
}

pub(super) fn read_zip(bytes: &[u8]) -> Result<Weights, Problem> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken("its archive", &error))?;
    let names: Result<Vec<String>, ZipError> =
        archive.file_names().map(|name| name.map(|name| name.into_owned())).collect();
    let names = names.map_err(|error| broken("a name in its archive", &error))?;
    let pickle = names.iter().find(|name| name.ends_with("/data.pkl") || **name == "data.pkl");
    let folder = match pickle.and_then(|name| name.strip_suffix("data.pkl")) {
        Some(folder) => folder.to_owned(),
        None => return Err(Problem::damaged("there is no `data.pkl` in its archive")),
    };
    if names.iter().any(|name| name.strip_prefix(&*folder) == Some("constants.pkl")) {
        return Err(Problem::TorchScript);
    }
    let order = match names.contains(&format!("{folder}byteorder")) {
        true if entry(&mut archive, &format!("{folder}byteorder"), 16)? == b"big" => Order::Big,
        _ => Order::Little,
    };
    let text = entry(&mut archive, &format!("{folder}data.pkl"), pickle::LENGTH.min(bytes.len()))?;
    let StateDict { tensors, within } = find(&pickle::read(&text)?)?;
    let mut budget = Budget { left: bytes.len() };
    let mut read = NamedTensors::new();
    // Entries of an archive may overlap; together they must not be more than the file.
    let mut unread = bytes.len();
    // One storage in memory at a time, whatever shares it.
    for (key, views) in by_storage(tensors) {
        let storage = entry(&mut archive, &format!("{folder}data/{key}"), unread)?;
        unread -= storage.len();
        for (name, view) in views {
            budget.spend(&view.shape)?;
            let data = contiguous(&name, &view, &storage, order)?;
            read.insert(name, data);
        }
    }
    Ok(Weights { tensors: read, format: Format::Torch, within })
}

/// An entry of the archive, its checksum compared.
fn entry(archive: &mut Archive<'_>, name: &str, limit: usize) -> Result<Vec<u8>, Problem> {
    let entry = archive.by_name(name).map_err(|error| broken(&format!("`{name}` in its archive"), &error))?;
    let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
    if size > limit {
        return Err(Problem::excessive(format!("`{name}` in its archive claims {size} bytes")));
    }
    let mut bytes = Vec::with_capacity(size);
    let read = entry.take(limit as u64).read_to_end(&mut bytes);
    read.map_err(|error| Problem::damaged(format!("`{name}` in its archive: {error}")))?;
    if bytes.len() != size {
        return Err(Problem::damaged(format!(
            "`{name}` in its archive has {} bytes, not {size}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn broken(what: &str, error: &ZipError) -> Problem {
    Problem::damaged(format!("{what}: {error}"))
}

type Views = Vec<(String, Rc<Strided>)>;

fn by_storage(tensors: Vec<(String, Rc<Strided>)>) -> BTreeMap<String, Views> {
    let mut storages = BTreeMap::<String, Views>::new();
    for (name, tensor) in tensors {
        storages.entry(tensor.storage.key.clone()).or_default().push((name, tensor));
    }
    storages
}

/// The number that legacy files begin with, as its lowest 8 bytes are too long for our integers.
const MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

pub(super) fn read_legacy(bytes: &[u8]) -> Result<Weights, Problem> {
    let mut rest = match bytes.strip_prefix(&MAGIC) {
        Some(rest) => rest,
        // A bare pickle has no tensors that could be read, but what it asks for is worth telling.
        None => return pickle::read(bytes).and(Err(Problem::Unknown)),
    };
    let mut next = || -> Result<Pickled, Problem> {
        let pickled = pickle::read(rest)?;
        rest = &rest[pickled.length..];
        Ok(pickled)
    };
    let (_protocol, system, object, keys) = (next()?, next()?, next()?, next()?);
    let order = order_of(&system);
    let StateDict { tensors, within } = find(&object)?;
    let Value::List(keys_id) = keys.top else {
        return Err(Problem::damaged("the list of its storages is missing"));
    };
    let mut storages = HashMap::<String, &[u8]>::new();
    for key in keys.sequence(keys_id) {
        let Value::Text(key) = key else { return Err(Problem::damaged("the name of a storage is no text")) };
        let kind = object.storages.get(&**key);
        let kind = kind.ok_or_else(|| Problem::damaged(format!("nothing says what storage {key} holds")))?;
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(|| cut(key))?;
        let count = match order {
            Order::Little => u64::from_le_bytes(*count),
            Order::Big => u64::from_be_bytes(*count),
        };
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(kind.width()));
        let length = length.filter(|length| *length <= after.len()).ok_or_else(|| cut(key))?;
        let (storage, after) = after.split_at(length);
        storages.insert(key.to_string(), storage);
        rest = after;
    }
    let mut budget = Budget { left: bytes.len() };
    let mut read = NamedTensors::new();
    for (name, view) in &tensors {
        let storage = storages.get(&view.storage.key);
        let storage =
            storage.ok_or_else(|| Problem::damaged(format!("the numbers of `{name}` are not in it")))?;
        budget.spend(&view.shape)?;
        read.insert(name.clone(), contiguous(name, view, storage, order)?);
    }
    Ok(Weights { tensors: read, format: Format::TorchLegacy, within })
}

fn cut(key: &str) -> Problem {
    Problem::damaged(format!("it ends within storage {key}"))
}

fn order_of(system: &Pickled) -> Order {
    let Value::Dict(id) = system.top else { return Order::Little };
    let big = system.pairs(id).iter().any(|(key, value)| {
        matches!(key, Value::Text(key) if &**key == "little_endian") && matches!(value, Value::Bool(false))
    });
    if big { Order::Big } else { Order::Little }
}
