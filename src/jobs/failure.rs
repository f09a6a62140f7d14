//! Why a job failed, and what to do about it, for people who do not read logs.

use serde::Serialize;

use super::{Job, JobState, Place};

/// A failure in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happened.
    pub what: String,
    /// What to do next.
    pub next: &'static str,
    /// The part of the project's pages where that is done: `label`, `images`, `train`; nothing if it is this page.
    pub go: Option<&'static str>,
}

/// A cause that is known: words in what was said, all in small letters; what it means; what helps; where.
type Cause = (&'static [&'static str], &'static str, &'static str, Option<&'static str>);

const CAUSES: [Cause; 12] = [
    (
        &["out of memory", "cannot allocate memory", "oom-kill", "out_of_memory", "memory allocation of"],
        "It needed more memory than there is.",
        "Train again with smaller images, a smaller base model or a smaller batch (in Advanced), or on a machine with more memory.",
        Some("train"),
    ),
    (
        &["no space left", "disk is full", "quota"],
        "The disk is full.",
        "Free some space, or ask the administrators for more. Then press Resume: it goes on from what was saved last.",
        None,
    ),
    (
        &["different labelled images", "no labels are known"],
        "There are too few labels.",
        "Label a few more images of each class, then train again.",
        Some("label"),
    ),
    (
        &[
            "that the disk is connected",
            "there are no images at",
            "no usable image in",
            "changed since the scan",
        ],
        "The images are not where they were.",
        "See that their folder is there and may be read, and look at the images again. Then press Resume.",
        Some("images"),
    ),
    (
        &["is in use by"],
        "Another program works on the same.",
        "Wait until it has ended, or stop it; then press Resume.",
        None,
    ),
    (
        &["the loss became", "loss or a weight became"],
        "The training went astray: its numbers became too large.",
        "Train again with a lower learning rate (in Advanced), a third of the last one, say.",
        Some("train"),
    ),
    (
        &["never got beyond it"],
        "It was started again and again, and never got any further.",
        "The last lines below tell how each start ended. Once that is mended, press Resume.",
        None,
    ),
    (
        &["command not found", "no such file or directory: harvest", "exec format error"],
        "The program, or something it is started with, is not there.",
        "Look at the script: do its modules and its container exist where the job runs? Then press Resume.",
        None,
    ),
    (
        &["cuda"],
        "The GPU could not be used.",
        "Train on the processor instead (Advanced, device), or on a machine with a GPU.",
        Some("train"),
    ),
    (
        &["permission denied", "you may not write there"],
        "It may not write where it has to.",
        "Ask the owner of the folder below for the right to write there. Then press Resume.",
        None,
    ),
    (
        &["could not connect", "last seen at step"],
        "Its parts on several machines lost each other.",
        "A machine or the network failed. Press Resume: it goes on from what was saved last.",
        None,
    ),
    (
        &["cannot load", "weights to start from", "no model"],
        "The model to start from could not be used.",
        "Choose another base model, or train from scratch.",
        Some("train"),
    ),
];

/// Why `job` failed; nothing unless it did.
pub fn explain(job: &Job) -> Option<Explanation> {
    let ended = job.record.ended.as_ref().filter(|ended| ended.state == JobState::Failed)?;
    let said = job.failure().or_else(|| last_error(&job.tail(200)));
    let own_words = said.as_deref().map_or(String::new(), |said| format!(" It said: {said}"));
    let told = |what: &str, next, go| Some(Explanation { what: format!("{what}{own_words}"), next, go });
    let word = ended.word.as_deref().unwrap_or_default();
    let heard = format!("{} {}", word, said.as_deref().unwrap_or_default()).to_lowercase();
    if let Some((_, what, next, go)) =
        CAUSES.iter().find(|(words, ..)| words.iter().any(|word| heard.contains(word)))
    {
        return told(what, next, *go);
    }
    match (word, job.record.place) {
        ("TIMEOUT" | "DEADLINE", _) => told(
            "Its time was up before it could save and be started again.",
            "Press Resume: it goes on from what was saved last. A longer time in Advanced makes this rarer.",
            None,
        ),
        ("NODE_FAIL" | "BOOT_FAIL", _) => told(
            "A machine of the cluster failed.",
            "Press Resume: it goes on from what was saved last.",
            None,
        ),
        ("PREEMPTED", _) => told(
            "Others, who go first, took its machines.",
            "Press Resume: it goes on from what was saved last.",
            None,
        ),
        ("137", _) => told(
            "The system killed it, most likely because memory ran out.",
            "Train again with smaller images or a smaller base model (in Advanced), or on a machine with more memory.",
            Some("train"),
        ),
        ("127" | "126", _) => told(
            "The program could not be started.",
            "Look at the script: do its paths, modules and container exist where the job runs? Then press Resume.",
            None,
        ),
        ("75", _) => told(
            "It was started again as often as is allowed.",
            "Press Resume: it goes on from what was saved last.",
            None,
        ),
        ("", _) if job.record.starts.is_empty() => told(
            "It was planned, but never started: the page ended in between.",
            "Press Resume to start it.",
            None,
        ),
        ("", Place::Here) => told(
            "It was killed, with the machine or by somebody, and could not say why.",
            "Press Resume: it goes on from what was saved last.",
            None,
        ),
        ("", Place::Slurm) => told(
            "Slurm has forgotten it, and it left no word.",
            "Press Resume: it goes on from what was saved last.",
            None,
        ),
        _ => Some(Explanation {
            what: said.unwrap_or_else(|| format!("It ended with `{word}` and said nothing of why.")),
            next: "The last lines below may tell more. Once that is mended, press Resume: it goes on from what was saved last.",
            go: None,
        }),
    }
}

/// The last line of a program's complaint.
fn last_error(tail: &str) -> Option<String> {
    let complaint = |line: &&str| {
        ["error:", "srun: error", "slurmstepd: error"].iter().any(|start| line.starts_with(start))
            || line.contains("command not found")
            || line.contains("panicked at")
            || line.contains("oom-kill")
    };
    let line = tail.lines().rev().map(str::trim).find(complaint)?;
    Some(line.trim_start_matches("error:").trim().to_owned())
}
