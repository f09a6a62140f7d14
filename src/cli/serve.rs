//! `harvest serve`: the page where experts work.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::context::Usage;
use crate::config::{Sources, resolve};
use crate::project::Project;
use crate::web::{Secret, ServeOptions, serve, write_private};

/// Show the page where images are labelled, models trained and results looked at.
#[derive(Debug, Args)]
pub struct Serve {
    /// Folder of the project to begin with; without it and --roots, the one around the current folder, if any.
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Folders that the page may use, links in them included; without, the project's, that of its images, and the current one.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    roots: Vec<PathBuf>,
    /// Address to listen on. Any that other machines can reach needs --secret-file.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 8765)]
    port: u16,
    /// What a proxy in front leaves before the path, such as /node/n17/8080.
    #[arg(long, value_name = "PATH", default_value = "")]
    prefix: String,
    /// Name under which a proxy on this machine shows the page. May be repeated.
    #[arg(long, value_name = "NAME")]
    behind: Vec<String>,
    /// File of the secret to sign in with; made, readable for you alone, if it does not exist.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What the label history calls visitors who give no name; without, the account's name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Write the address into this file, readable for you alone, each time there is a new one.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        let project = match &self.project {
            Some(dir) => Some(Project::open(dir)?),
            // Who names folders wants these and no others.
            None if !self.roots.is_empty() => None,
            None => Project::find(Path::new(".")).ok(),
        };
        let secret = self.secret_file.as_deref().map(Secret::of_file).transpose()?;
        let options = ServeOptions {
            address: SocketAddr::new(address(&self.host)?, self.port),
            roots: self.roots(project.as_ref())?,
            prefix: prefix(&self.prefix)?,
            behind: self.behind,
            project: project.map(|project| project.dir().to_owned()),
            name: self.name.unwrap_or_else(account),
            memory: memory(),
            secret,
        };
        let ready = self.ready_file;
        if let Some(file) = &ready {
            // Told now rather than when the first address is to be written.
            write_private(file, b"").context("the address cannot be written down")?;
        }
        let secret = self.secret_file.is_some();
        serve(
            options,
            Box::new(move |address| {
                if let Some(file) = &ready
                    && let Err(error) = write_private(file, format!("{address}\n").as_bytes())
                {
                    eprintln!("{}", crate::errors::chain(&error));
                }
                let words = match secret {
                    true => format!("HARVEST is at {address} for those who know the secret; Ctrl-C ends it"),
                    false => {
                        format!(
                            "open this address, good for one visitor (Ctrl-C ends the page):\n  {address}"
                        )
                    }
                };
                // Whoever started it may not listen any more, which is no reason to end.
                let _ = writeln!(std::io::stdout(), "{words}");
            }),
        )?;
        let _ = writeln!(std::io::stdout(), "the page has ended");
        Ok(())
    }

    /// The folders asked for, or those that a project needs and the current one.
    fn roots(&self, project: Option<&Project>) -> anyhow::Result<Vec<PathBuf>> {
        let mut roots = self.roots.clone();
        if let Some(missing) = roots.iter().find(|root| !root.is_dir()) {
            return Err(Usage(format!("--roots names `{}`, which is not a folder", missing.display())).into());
        }
        if roots.is_empty() {
            roots.push(PathBuf::from("."));
        }
        if let Some(project) = project {
            roots.push(project.dir().to_owned());
            roots.extend(image_root(project));
        }
        Ok(roots)
    }
}

/// Folder of a project's images, if its settings say one.
fn image_root(project: &Project) -> Option<PathBuf> {
    let sources = Sources { project: Some(project.file()), ..Sources::of_this_machine() };
    let root = resolve(&sources).ok()?.value.data.root?.0;
    // A table of images lies among them.
    if root.is_file() { root.parent().map(Path::to_owned) } else { Some(root) }
}

fn address(host: &str) -> anyhow::Result<IpAddr> {
    if host == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    host.trim_matches(['[', ']']).parse().map_err(|_| {
        Usage(format!(
            "--host {host} is no address; use 127.0.0.1 for this machine alone, 0.0.0.0 for all that reach it"
        ))
        .into()
    })
}

/// With a slash in front and none behind.
fn prefix(text: &str) -> anyhow::Result<String> {
    let plain = text.trim_matches('/');
    if plain.contains(['?', '#', '\\', '%'])
        || plain.contains(char::is_whitespace)
        || plain.split('/').any(|part| part == "..")
    {
        return Err(Usage(format!("--prefix {text} is no path; it looks like /node/n17/8080")).into());
    }
    Ok(if plain.is_empty() { String::new() } else { format!("/{plain}") })
}

/// Name of the account that this program runs under.
fn account() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|name| !name.trim().is_empty());
    variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "somebody".into())
}

/// `$XDG_STATE_HOME/harvest`, made if need be; without a home folder nothing is remembered.
fn memory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = state.or_else(|| Some(std::env::home_dir()?.join(".local").join("state")))?.join("harvest");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes_are_read_or_explained() {
        assert_eq!(prefix("/node/n17/8080/").expect("a path"), "/node/n17/8080");
        assert_eq!(prefix("").expect("none"), "");
        assert!(prefix("/a/../b").is_err() && prefix("/a b").is_err());
        assert!(address("localhost").expect("this machine").is_loopback());
        assert!(address("[::1]").expect("this machine").is_loopback());
        assert!(address("example.org").expect_err("a name").to_string().contains("127.0.0.1"));
    }
}
