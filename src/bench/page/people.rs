//! Many people who label at once, and whether everything they said was kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::PageError;
use super::client::Visitor;
use crate::project::{ImageHash, Label, LabelStore};

/// Images that one click labels; each person's clicks take turns over these.
const AT_ONCE: [usize; 4] = [1, 1, 3, 10];

/// What one person has said.
#[derive(Default)]
struct Diary {
    /// The last label of each of their images.
    said: BTreeMap<String, Value>,
    seconds: Vec<f64>,
}

/// What came of many people's clicks.
pub(super) struct Crowd {
    /// From each click to its answer.
    pub seconds: Vec<f64>,
    /// Images and the labels that were said last.
    said: BTreeMap<String, Value>,
}

/// `people` label `actions` times each, all at once, each their own images of the list `view`, some of them several times.
pub(super) fn label_at_once(
    visitor: &Visitor,
    view: &str,
    total: usize,
    people: usize,
    actions: usize,
) -> Result<Crowd, PageError> {
    let share = (total / people.max(1)).min(1000);
    let diaries = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..people)
            .map(|person| {
                let own = visitor.another();
                scope.spawn(move || keep_diary(&own, view, person, share, actions))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(PageError::Panicked)));
        joined.collect::<Result<Vec<Diary>, _>>()
    })?;
    let mut crowd = Crowd { seconds: Vec::new(), said: BTreeMap::new() };
    for diary in diaries {
        crowd.seconds.extend(diary.seconds);
        crowd.said.extend(diary.said);
    }
    Ok(crowd)
}

fn keep_diary(
    visitor: &Visitor,
    view: &str,
    person: usize,
    share: usize,
    actions: usize,
) -> Result<Diary, PageError> {
    let own = visitor.get(&format!("api/rows?view={view}&from={}&count={share}", person * share))?;
    let images: Vec<&Value> = own["rows"].as_array().into_iter().flatten().map(|row| &row["h"]).collect();
    let codes = [json!(0), json!(1), json!("u"), json!(2), json!("x"), json!("b"), Value::Null, json!(3)];
    let mut diary = Diary::default();
    for action in 0..actions {
        let count = AT_ONCE[action % AT_ONCE.len()].min(images.len());
        let chosen: Vec<&Value> =
            (0..count).map(|place| images[(action * 7 + place) % images.len()]).collect();
        let code = &codes[(person + action) % codes.len()];
        let request = format!("bench-{person}-{action}");
        let body = json!({ "request": request, "images": chosen, "label": code, "how": "page: bench" });
        let begin = Instant::now();
        let answer = visitor.post("api/label", &body)?;
        diary.seconds.push(begin.elapsed().as_secs_f64());
        if answer["version"].as_u64().is_none() {
            return Err(PageError::Answer { address: "api/label".into(), words: answer.to_string() });
        }
        for image in chosen {
            diary.said.insert(image.as_str().unwrap_or_default().to_owned(), code.clone());
        }
    }
    Ok(diary)
}

impl Crowd {
    /// Images whose label in the list that the page shows is not the one that was said last.
    pub(super) fn wrong_on_page(
        &self,
        visitor: &Visitor,
        view: &str,
        total: usize,
    ) -> Result<usize, PageError> {
        let mut left = self.said.clone();
        for from in (0..total).step_by(1000) {
            if left.is_empty() {
                break;
            }
            let part = visitor.get(&format!("api/rows?view={view}&from={from}&count=1000"))?;
            for row in part["rows"].as_array().into_iter().flatten() {
                let hash = row["h"].as_str().unwrap_or_default();
                if left.get(hash).is_some_and(|said| *said == row["l"]) {
                    left.remove(hash);
                }
            }
        }
        Ok(left.len())
    }

    /// Images whose label in the project's database is not the one that was said last.
    pub(super) fn wrong_in_store(&self, project: &Path) -> Result<usize, PageError> {
        let kept = LabelStore::read(project)?;
        let right = |(image, said): (&String, &Value)| {
            let hash: Option<ImageHash> = blake3::Hash::from_hex(image).ok().map(|hash| *hash.as_bytes());
            hash.is_some_and(|hash| kept.get(&hash).copied() == label(said))
        };
        Ok(self.said.iter().filter(|pair| !right(*pair)).count())
    }

    /// Images that were labelled.
    pub(super) fn images(&self) -> usize {
        self.said.len()
    }
}

fn label(code: &Value) -> Option<Label> {
    match code.as_str() {
        Some("u") => Some(Label::NotSure),
        Some("x") => Some(Label::NoneOfThese),
        Some("b") => Some(Label::BadImage),
        _ => code.as_u64().and_then(|id| u16::try_from(id).ok()).map(Label::Class),
    }
}
