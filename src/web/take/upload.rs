//! Pictures that somebody sends: within limits of size, number and pixels, kept in files without a name that are gone with the
//! request.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use axum::extract::multipart::{Field, Multipart};
use harvest_picture::DecodeLimits;
use tokio::io::AsyncWriteExt;
use zip::ZipArchive;
use zip::unstable::read::ZipIterable;

use crate::web::error::WebError;

/// Bytes of a request.
pub const REQUEST: usize = 256 << 20;
/// Bytes of one picture, packed or not.
const PICTURE: u64 = 48 << 20;
/// Pictures and archives of a request.
const FILES: usize = 500;
/// Entries of an archive.
const ENTRIES: usize = 5000;
/// Bytes of an archive's pictures, unpacked.
const UNPACKED: u64 = 4 << 30;
/// A picture hardly shrinks when it is packed; something that shrinks to a hundredth is made to harm.
const RATIO: u64 = 100;
/// Below this size the ratio does not matter: a picture of one colour shrinks to nothing.
const RATIO_FROM: u64 = 4 << 20;

/// What one picture may cost.
pub const LIMITS: DecodeLimits =
    DecodeLimits { max_pixels: 80_000_000, max_file_bytes: PICTURE, pixels_in_flight: 96_000_000 };

/// A file that was sent.
pub struct Sent {
    name: String,
    file: File,
    bytes: u64,
}

/// A picture's name and content, or why there is none.
pub struct Picture {
    /// As the sender calls it; only shown, and never a path here.
    pub name: String,
    /// Its bytes, not decoded; or words.
    pub content: Result<Vec<u8>, String>,
}

/// Takes every file of a form.
///
/// # Errors
/// If it is too large, has too many files or none, or the sender goes away.
pub async fn receive(mut form: Multipart) -> Result<Vec<Sent>, WebError> {
    let broken = |error: axum::extract::multipart::MultipartError| match error.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => WebError::Bad(format!(
            "this is more than {} MB at once; send fewer or smaller pictures",
            REQUEST >> 20
        )),
        _ => WebError::Bad("the upload broke off or is no form; send it again".into()),
    };
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let Some(name) = field.file_name().map(shown_name) else { continue };
        if files.len() == FILES {
            return Err(WebError::Bad(format!(
                "more than {FILES} files at once; send fewer, or a ZIP archive"
            )));
        }
        files.push(keep(name, field).await.map_err(|error| match error {
            Kept::Broken(error) => broken(error),
            Kept::Full(error) => WebError::Bad(format!("the server has no room for the upload: {error}")),
        })?);
    }
    match files.is_empty() {
        true => Err(WebError::Bad("there is no picture in this upload".into())),
        false => Ok(files),
    }
}

enum Kept {
    Broken(axum::extract::multipart::MultipartError),
    Full(std::io::Error),
}

async fn keep(name: String, mut field: Field<'_>) -> Result<Sent, Kept> {
    let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(Kept::Full)?);
    let mut bytes = 0;
    while let Some(chunk) = field.chunk().await.map_err(Kept::Broken)? {
        file.write_all(&chunk).await.map_err(Kept::Full)?;
        bytes += chunk.len() as u64;
    }
    file.flush().await.map_err(Kept::Full)?;
    Ok(Sent { name, file: file.into_std().await, bytes })
}

/// A name as it is shown: what leads through folders is told with `/`, steps upwards and to the root are left out, and so is what
/// cannot be printed.
fn shown_name(name: &str) -> String {
    let parts = name.split(['/', '\\']).filter(|part| !matches!(*part, "" | "." | ".."));
    // A drive's letter is a root too.
    let parts: Vec<&str> = parts.filter(|part| !(part.len() == 2 && part.ends_with(':'))).collect();
    let name: String = parts.join("/").chars().filter(|c| !c.is_control()).take(300).collect();
    if name.is_empty() { "picture".to_owned() } else { name }
}

impl Sent {
    /// Gives each picture to `take` until it says no: the file itself, or those of a ZIP archive.
    pub fn each(mut self, take: &mut dyn FnMut(Picture) -> bool) -> bool {
        let mut head = [0; 4];
        let begins = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read(&mut head));
        let picture = |name: String, content| Picture { name, content };
        let head = match begins {
            Err(error) => return take(picture(self.name, Err(format!("it cannot be read: {error}")))),
            Ok(read) => &head[..read],
        };
        if matches!(head, b"PK\x03\x04" | b"PK\x05\x06") {
            return unpack(self.name, self.file, take);
        }
        let content = match self.bytes > PICTURE {
            true => Err(format!("it has {} MB; a picture may have {}", self.bytes >> 20, PICTURE >> 20)),
            false => whole(&mut self.file),
        };
        take(picture(self.name, content))
    }
}

fn whole(file: &mut File) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| format!("it cannot be read: {error}"))
}

/// The pictures of an archive, one after the other; nothing is written anywhere.
fn unpack(name: String, mut file: File, take: &mut dyn FnMut(Picture) -> bool) -> bool {
    let refuse = |reason: String| Picture { name: name.clone(), content: Err(reason) };
    // The table of contents is read into memory, and its length is the sender's choice: it is asked for first.
    match ZipIterable::try_new(&mut file, zip::read::Config::default()).map(|archive| archive.len()) {
        Ok(entries) if entries > ENTRIES => {
            return take(refuse(format!("the archive has {entries} entries; {ENTRIES} are taken at once")));
        }
        Ok(_) => {}
        Err(error) => return take(refuse(format!("the archive is damaged ({error})"))),
    }
    let mut archive = match ZipArchive::new(file) {
        Ok(archive) => archive,
        Err(error) => return take(refuse(format!("the archive is damaged ({error})"))),
    };
    let mut left = UNPACKED;
    let mut pictures = 0;
    for entry in 0..archive.len() {
        let mut entry = match archive.by_index(entry) {
            Ok(entry) => entry,
            Err(error) => {
                if !take(refuse(format!("an entry of the archive cannot be read ({error})"))) {
                    return false;
                }
                continue;
            }
        };
        let own = entry.name().map_or_else(|_| "picture".to_owned(), |name| shown_name(&name));
        if entry.is_dir() || is_clutter(&own) {
            continue;
        }
        pictures += 1;
        let content = read_entry(&mut entry, &mut left);
        if !take(Picture { name: own, content }) {
            return false;
        }
        if left == 0 {
            return take(refuse(format!(
                "the archive has more than {} GB in it; the rest is left out",
                UNPACKED >> 30
            )));
        }
    }
    pictures > 0 || take(refuse("the archive has no pictures in it".to_owned()))
}

/// What systems put into archives beside the pictures.
fn is_clutter(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX") || name.ends_with("Thumbs.db")
}

/// An entry's bytes. What the archive says of its size is checked, and not believed.
fn read_entry<R: Read>(entry: &mut zip::read::ZipFile<'_, R>, left: &mut u64) -> Result<Vec<u8>, String> {
    let (packed, told) = (entry.compressed_size(), entry.size());
    if told > PICTURE {
        return Err(format!("it has {} MB; a picture may have {}", told >> 20, PICTURE >> 20));
    }
    let room = PICTURE.min(*left);
    let mut bytes = Vec::new();
    let read = entry.by_ref().take(room + 1).read_to_end(&mut bytes);
    *left = left.saturating_sub(bytes.len() as u64);
    let unpacked = bytes.len() as u64;
    if unpacked > room {
        return Err(format!("it has more than {} MB, whatever the archive says", room >> 20));
    }
    if unpacked > RATIO_FROM && unpacked / packed.max(1) > RATIO {
        return Err("it unpacks to more than a hundred times its size, which no photograph does".to_owned());
    }
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("it is damaged in the archive ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::SimpleFileOptions;

    use super::*;

    fn sent(name: &str, bytes: &[u8]) -> Sent {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("writable");
        Sent { name: name.to_owned(), file, bytes: bytes.len() as u64 }
    }

    fn pictures(sent: Sent) -> Vec<(String, Result<usize, String>)> {
        let mut all = Vec::new();
        sent.each(&mut |picture: Picture| {
            all.push((picture.name, picture.content.map(|bytes| bytes.len())));
            true
        });
        all
    }

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let packed = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for (name, bytes) in entries {
            zip.start_file(*name, packed).expect("memory");
            zip.write_all(bytes).expect("memory");
        }
        zip.finish().expect("memory").into_inner()
    }

    #[test]
    fn names_lead_nowhere() {
        for (name, shown) in [
            ("../../etc/passwd", "etc/passwd"),
            ("/absolute/x.png", "absolute/x.png"),
            ("C:\\photos\\..\\x.png", "photos/x.png"),
            ("a\u{0}\u{1b}b.png", "ab.png"),
            ("..", "picture"),
        ] {
            assert_eq!(shown_name(name), shown);
        }
        let zip = archive(&[
            ("../evil.png", b"x"),
            ("/abs/evil.png", b"yy"),
            ("__MACOSX/._x.png", b"z"),
            (".x", b"z"),
        ]);
        let found = pictures(sent("x.zip", &zip));
        assert_eq!(found, [("evil.png".to_owned(), Ok(1)), ("abs/evil.png".to_owned(), Ok(2))]);
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_anything() {
        let nothing = vec![0; 20 << 20];
        let found = pictures(sent("bomb.zip", &archive(&[("zeros.png", &nothing), ("ok.png", b"fine")])));
        assert!(found[0].1.as_ref().is_err_and(|words| words.contains("hundred times")), "{found:?}");
        assert_eq!(found[1], ("ok.png".to_owned(), Ok(4)), "the others are looked at");
        let huge = vec![0; (PICTURE + 1) as usize];
        let zip = archive(&[("huge.png", &huge)]);
        let found = pictures(sent("bomb.zip", &zip));
        assert!(found[0].1.as_ref().is_err_and(|words| words.contains("a picture may have")), "{found:?}");
        // The same archive with a lie about the size, in both places that tell it.
        let mut lying = zip.clone();
        let size = (PICTURE as u32 + 1).to_le_bytes();
        let places: Vec<usize> = (0..lying.len() - 4).filter(|at| lying[*at..at + 4] == size).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| lying[at..at + 4].copy_from_slice(&10u32.to_le_bytes()));
        let found = pictures(sent("bomb.zip", &lying));
        assert!(found[0].1.is_err(), "{found:?}");
    }

    #[test]
    fn too_many_entries_and_damage_are_told() {
        let names: Vec<String> = (0..=ENTRIES).map(|i| format!("{i}.png")).collect();
        let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        let found = pictures(sent("many.zip", &archive(&entries)));
        assert_eq!(found.len(), 1);
        assert!(found[0].1.as_ref().is_err_and(|words| words.contains("5000 are taken")), "{found:?}");
        let found = pictures(sent("torn.zip", b"PK\x03\x04 and nothing more"));
        assert!(found[0].1.as_ref().is_err_and(|words| words.contains("damaged")), "{found:?}");
        let found = pictures(sent("empty.zip", &archive(&[])));
        assert!(found[0].1.as_ref().is_err_and(|words| words.contains("no pictures")), "{found:?}");
    }

    #[test]
    fn asking_to_stop_stops() {
        let zip = archive(&[("a.png", b"a"), ("b.png", b"b")]);
        let mut seen = 0;
        assert!(!sent("x.zip", &zip).each(&mut |_| {
            seen += 1;
            false
        }));
        assert_eq!(seen, 1);
    }
}
