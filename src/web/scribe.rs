//! The one who writes: a thread that owns a project's label history and changes its classes.
//!
//! Requests wait in a queue while the disk is busy; then all that wait are written in one transaction, and each is answered
//! once the disk has them. So a click is either on the disk when the page says saved, or the page is told why not. What was
//! written is shown to the [`Audience`] in that order, before it is answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::error::WebError;
use crate::errors::chain;
use crate::project::{
    Act, ClassChange, Deed, Done, HistoryPage, ImageHash, Label, LabelEntry, LabelError, LabelStore, Project,
};

/// Requests in one transaction.
const GROUP: usize = 512;

/// Who is told what was written, from the scribe's thread.
pub trait Audience: Send + Sync {
    /// Images have other labels; returns the new version of what pages show.
    fn labelled(&self, who: &str, images: &[(ImageHash, Option<Label>)]) -> u64;
    /// The version of what pages show.
    fn version(&self) -> u64;
    /// The classes or the project's name are others.
    fn reclassed(&self, project: Project);
    /// The history was lost and found again: these are its labels, whatever was told before.
    fn found_again(&self, labels: BTreeMap<ImageHash, Label>);
}

/// An answer to an act.
#[derive(Debug)]
pub struct Written {
    /// What came of it.
    pub done: Done,
    /// The version of what pages show that has it.
    pub version: u64,
    /// What else to say, in words.
    pub notes: Vec<String>,
}

/// What is done to classes, beyond the list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassDeed {
    /// Only the list changes.
    Change(ClassChange),
    /// Images of one get the label of another, and the one is no more.
    Merge {
        /// The one.
        from: u16,
        /// The other.
        into: u16,
    },
    /// Its images lose their label, and it is no more.
    Delete {
        /// Which.
        id: u16,
    },
}

type Reply<T> = oneshot::Sender<Result<T, WebError>>;

enum Message {
    Act(Act, Reply<Written>),
    Classes { who: String, request: Option<String>, deed: ClassDeed, reply: Reply<()> },
    Look(Reply<()>),
    Page(HistoryPage, Reply<Vec<LabelEntry>>),
    Current(Reply<BTreeMap<ImageHash, Label>>),
}

/// Hands requests to the thread. Dropped, it waits until all are written, and the project's lock is free again.
pub struct Scribe {
    inbox: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Scribe {
    /// Begins to write.
    ///
    /// # Errors
    /// If this machine can start no more threads.
    pub fn start(project: Project, store: LabelStore, audience: Arc<dyn Audience>) -> std::io::Result<Self> {
        let (inbox, letters) = mpsc::channel();
        let desk = Writing { project, store: Some(store), audience };
        let thread = std::thread::Builder::new().name("scribe".into()).spawn(move || desk.run(&letters))?;
        Ok(Self { inbox: Some(inbox), thread: Some(thread) })
    }

    /// Writes something down; answered when it is on the disk.
    ///
    /// # Errors
    /// If it makes no sense or cannot be written; nothing is changed then.
    pub async fn act(&self, act: Act) -> Result<Written, WebError> {
        self.ask(|reply| Message::Act(act, reply)).await
    }

    /// Changes the classes, in the project's file as it is now.
    ///
    /// # Errors
    /// If it makes no sense or cannot be written.
    pub async fn change_classes(
        &self,
        who: String,
        request: Option<String>,
        deed: ClassDeed,
    ) -> Result<(), WebError> {
        self.ask(|reply| Message::Classes { who, request, deed, reply }).await
    }

    /// Reads the project's file again, which somebody may have edited.
    ///
    /// # Errors
    /// If it is wrong now; the classes are then as before.
    pub async fn look(&self) -> Result<(), WebError> {
        self.ask(Message::Look).await
    }

    /// A page of the history.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn page(&self, page: HistoryPage) -> Result<Vec<LabelEntry>, WebError> {
        self.ask(|reply| Message::Page(page, reply)).await
    }

    /// All current labels. What is told to the audience from now on comes after them.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn current(&self) -> Result<BTreeMap<ImageHash, Label>, WebError> {
        self.ask(Message::Current).await
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, WebError> {
        let (reply, answer) = oneshot::channel();
        let inbox = self.inbox.as_ref().ok_or(WebError::NoScribe)?;
        inbox.send(message(reply)).map_err(|_| WebError::NoScribe)?;
        answer.await.map_err(|_| WebError::NoScribe)?
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was answered as such already.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Writing {
    project: Project,
    /// Missing after an error that only opening it anew can mend.
    store: Option<LabelStore>,
    audience: Arc<dyn Audience>,
}

impl Writing {
    fn run(mut self, letters: &mpsc::Receiver<Message>) {
        while let Ok(first) = letters.recv() {
            let mut waiting = VecDeque::from([first]);
            waiting.extend(letters.try_iter().take(GROUP - 1));
            while let Some(message) = waiting.pop_front() {
                match message {
                    Message::Act(act, reply) => {
                        let (mut acts, mut replies) = (VecDeque::from([act]), VecDeque::from([reply]));
                        while let Some(Message::Act(..)) = waiting.front() {
                            if let Some(Message::Act(act, reply)) = waiting.pop_front() {
                                acts.push_back(act);
                                replies.push_back(reply);
                            }
                        }
                        self.write_all(acts.make_contiguous(), replies);
                    }
                    Message::Classes { who, request, deed, reply } => {
                        answer(reply, self.classes(who, request, deed));
                    }
                    Message::Look(reply) => answer(reply, self.look()),
                    Message::Page(page, reply) => answer(reply, self.with_store(|store| store.page(&page))),
                    Message::Current(reply) => answer(reply, self.with_store(|store| store.current())),
                }
            }
        }
    }

    fn write_all(&mut self, mut acts: &[Act], mut replies: VecDeque<Reply<Written>>) {
        while !acts.is_empty() {
            let outcomes = match self.store() {
                Ok(store) => store.act_together(acts),
                Err(error) => vec![Err(error); acts.len()],
            };
            let (tried, others) = acts.split_at(outcomes.len().clamp(1, acts.len()));
            acts = others;
            for (act, outcome) in tried.iter().zip(outcomes) {
                let outcome = match outcome {
                    Ok(done) => Ok(self.announce(act, done)),
                    Err(error) => self.mend(act, error),
                };
                if let Some(reply) = replies.pop_front() {
                    answer(reply, outcome);
                }
            }
        }
    }

    /// Does one thing, with all that it takes.
    fn write(&mut self, act: &Act) -> Result<Written, WebError> {
        match self.store().and_then(|store| store.act(act).map_err(Arc::new)) {
            Ok(done) => Ok(self.announce(act, done)),
            Err(error) => self.mend(act, error),
        }
    }

    /// Tries again what can be mended: a class that has to come back for an undo, one that somebody wrote into the project's
    /// file a moment ago.
    fn mend(&mut self, act: &Act, mut error: Arc<LabelError>) -> Result<Written, WebError> {
        let mut looked = false;
        loop {
            let mut notes = Vec::new();
            match &*error {
                LabelError::RetiredClass { class } => {
                    let change = ClassChange::Revive { id: *class };
                    self.change(&change)?;
                    let name = self.project.classes().name_of(*class).unwrap_or_default();
                    notes.push(format!("The class “{name}” is there again."));
                }
                LabelError::UnknownClass { .. } if !looked => {
                    looked = true;
                    self.look()?;
                }
                _ => {
                    self.note(&error);
                    return Err(error.into());
                }
            }
            match self.store().and_then(|store| store.act(act).map_err(Arc::new)) {
                Ok(done) => {
                    let mut written = self.announce(act, done);
                    written.notes.splice(0..0, notes);
                    return Ok(written);
                }
                Err(again) => error = again,
            }
        }
    }

    /// Tells the audience, and ends a class that ends with this.
    fn announce(&mut self, act: &Act, done: Done) -> Written {
        let mut notes = Vec::new();
        if done.repeated {
            return Written { done, version: self.audience.version(), notes };
        }
        let version = match done.images.is_empty() {
            true => self.audience.version(),
            false => self.audience.labelled(&act.who, &done.images),
        };
        if let Some(class) = done.retires.filter(|_| act.deed != Deed::Undo) {
            notes.extend(self.retire(class));
        }
        Written { done, version, notes }
    }

    /// Ends a class, unless somebody has given it to images again; returns what is to be said.
    fn retire(&mut self, class: u16) -> Option<String> {
        let name = self.project.classes().name_of(class)?.to_owned();
        let still = match self.with_store(|store| store.images_of(class)) {
            Ok(images) => images.len(),
            Err(error) => return Some(chain(&error)),
        };
        if still > 0 {
            return Some(format!("The class “{name}” stays, since {still} images have it by now."));
        }
        self.change(&ClassChange::Retire { id: class }).err().map(|error| {
            format!(
                "No image has the class “{name}” any more, but it could not be removed: {}",
                chain(&error)
            )
        })
    }

    fn classes(&mut self, who: String, request: Option<String>, deed: ClassDeed) -> Result<(), WebError> {
        let (id, to, from) = match deed {
            ClassDeed::Change(change) => return self.change(&change),
            ClassDeed::Merge { from, into } => (from, Some(Label::Class(into)), "merged"),
            ClassDeed::Delete { id } => (id, None, "deleted"),
        };
        if let Some(request) = &request
            && self.with_store(|store| store.knows_request(&who, request))?
        {
            return Ok(());
        }
        self.look()?;
        let classes = self.project.classes();
        classes.changed(&ClassChange::Retire { id }, None).map_err(crate::project::ProjectError::from)?;
        if to == Some(Label::Class(id)) {
            return Err(WebError::Bad("a class cannot be merged into itself".into()));
        }
        let name = |id: u16| classes.name_of(id).unwrap_or_default().to_owned();
        let from = match to.and_then(Label::class) {
            Some(into) => format!("classes: {} {from} into {}", name(id), name(into)),
            None => format!("classes: {} {from}", name(id)),
        };
        let images = self.with_store(|store| store.images_of(id))?;
        let labels = images.into_iter().map(|image| (image, to)).collect();
        let written =
            self.write(&Act { who, request, deed: Deed::Label { labels, from, retires: Some(id) } })?;
        match written.notes.into_iter().next() {
            Some(words) => Err(WebError::Bad(words)),
            None => Ok(()),
        }
    }

    /// Changes the list of classes.
    fn change(&mut self, change: &ClassChange) -> Result<(), WebError> {
        let taken = match change {
            ClassChange::Add { .. } => self.with_store(|store| store.highest_class())?,
            _ => None,
        };
        let project = self.project.change_classes(change, taken)?;
        self.adopt(project)
    }

    fn look(&mut self) -> Result<(), WebError> {
        let project = Project::open(self.project.dir())?;
        let same = project.classes() == self.project.classes() && project.name() == self.project.name();
        if same { Ok(()) } else { self.adopt(project) }
    }

    fn adopt(&mut self, project: Project) -> Result<(), WebError> {
        self.with_store(|store| store.set_classes(project.classes()))?;
        self.project = project.clone();
        self.audience.reclassed(project);
        Ok(())
    }

    /// The history, opened again if need be.
    fn store(&mut self) -> Result<&mut LabelStore, Arc<LabelError>> {
        if self.store.is_none() {
            let store = LabelStore::reopen(self.project.dir(), self.project.classes())?;
            self.audience.found_again(store.current()?);
            self.store = Some(store);
        }
        Ok(self.store.as_mut().expect("opened above"))
    }

    fn with_store<T>(
        &mut self,
        work: impl FnOnce(&mut LabelStore) -> Result<T, LabelError>,
    ) -> Result<T, WebError> {
        let done = self.store().and_then(|store| work(store).map_err(Arc::new));
        done.map_err(|error| {
            self.note(&error);
            error.into()
        })
    }

    /// Lets go of a history that has failed, so that it is opened anew.
    fn note(&mut self, error: &LabelError) {
        if error.needs_reopening() {
            self.store = None;
        }
    }
}

/// Whoever asked may have gone.
fn answer<T>(reply: Reply<T>, outcome: Result<T, WebError>) {
    let _ = reply.send(outcome);
}

#[cfg(test)]
#[path = "scribe_tests.rs"]
mod tests;
