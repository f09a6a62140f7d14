//! The drawer of choices for those who want them, each with what happens if it is left alone.

use maud::{Markup, html};

use crate::algorithms::AlgorithmName;
use crate::config::{Resolved, Site};

/// A choice: the key, what it is called, what it means.
type Field = (&'static str, &'static str, &'static str);

const NUMBERS: [Field; 8] = [
    ("training.epochs", "Epochs", "Passes over the unlabelled images."),
    ("training.steps", "Steps", "In place of epochs, if you know how many."),
    ("data.labels_per_class", "Labels per class", "Use so many of each class; empty: all there are."),
    ("training.lr", "Learning rate", "Lower if a training goes astray."),
    ("training.batch", "Batch", "Labelled images a step. Less needs less memory."),
    ("model.image_size", "Image size", "Pixels a side the model looks at. Smaller is faster, and sees less."),
    ("training.unlabelled_ratio", "Unlabelled images", "For each labelled one in a step."),
    ("training.seed", "Seed", "Another number is another draw of everything that is drawn."),
];

/// The drawer.
pub fn advanced(defaults: &Resolved, site: &Site, slurm: bool) -> Markup {
    let value = |key: &str| {
        let entry = defaults.entries().iter().find(|entry| entry.key == key);
        entry.and_then(|entry| entry.value.as_ref()).map(|value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let usual = |key: &str| value(key).unwrap_or_default();
    html! {
        @if slurm { (place()) }
        details #advanced {
            summary { "Advanced" }
            p.hint { "What is left empty stays as the grey value says." }
            fieldset {
                legend { "Learning" }
                div.fields {
                    (choice("algorithm.name", "Algorithm", "How the unlabelled images are used.", &usual("algorithm.name"),
                        AlgorithmName::ALL.iter().map(|name| name.as_str())))
                    (choice("model.name", "Base model", "The network. Larger ones see more and take longer.", &usual("model.name"),
                        harvest_models::PRESETS))
                    (choice("run.device", "Device", "What computes.", &usual("run.device"), ["auto", "cpu", "cuda"]))
                    @for (key, name, hint) in NUMBERS {
                        @let usual = match key {
                            // All labels are used unless somebody says otherwise.
                            "data.labels_per_class" => "all".to_owned(),
                            "model.image_size" | "training.steps" => value(key).unwrap_or_else(|| "by itself".into()),
                            _ => usual(key),
                        };
                        (field(key, name, hint, &usual, "decimal"))
                    }
                }
            }
            @if slurm { (cluster(site)) }
        }
    }
}

fn place() -> Markup {
    html! {
        fieldset {
            legend { "Where" }
            label.choice {
                input type="radio" name="where" value="slurm" checked;
                span { "On the cluster " }
                small.hint { "Waits for its turn; goes on after this session has ended." }
            }
            label.choice {
                input type="radio" name="where" value="here";
                span { "On this machine " }
                small.hint { "Begins at once." }
            }
        }
    }
}

/// What a job of Slurm is given.
fn cluster(site: &Site) -> Markup {
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    html! {
        fieldset #cluster {
            legend { "Cluster" }
            div.fields {
                @if site.partitions.is_empty() {
                    (field("slurm.partition", "Partition", "Group of nodes.", "the usual one", "text"))
                } @else {
                    div.field {
                        label for="slurm.partition" { "Partition" }
                        select id="slurm.partition" name="slurm.partition" {
                            @for (name, partition) in &site.partitions {
                                option value=(name) selected[site.default_partition.as_ref() == Some(name)] {
                                    (name)
                                    @if !partition.description.is_empty() { ": " (partition.description) }
                                    (limits(partition.most_nodes, partition.gpus_per_node, partition.most_time.as_deref()))
                                }
                            }
                        }
                        small { "Group of nodes." }
                    }
                }
                @if site.accounts.len() > 1 {
                    (choice("slurm.account", "Account", "Who is charged.", &first(&site.accounts),
                        site.accounts.iter().map(String::as_str)))
                } @else {
                    (field("slurm.account", "Account", "Who is charged.", &first(&site.accounts), "text"))
                }
                (field("slurm.time", "Time", "At a stretch: `90` minutes, `4:00:00`, `1-12:00:00`. It goes on after that by itself.",
                    "what the partition gives", "text"))
                (field("slurm.nodes", "Nodes", "Machines that train together.", "1", "numeric"))
                (field("slurm.gpus_per_node", "GPUs of each node", "Empty: none is asked for.", "none", "numeric"))
                (field("slurm.tasks_per_node", "Processes on each node", "Without GPUs.", "1", "numeric"))
                (field("slurm.cpus_per_task", "Processors of each process", "", "1, or 8 beside a GPU", "numeric"))
            }
        }
    }
}

fn limits(nodes: Option<u32>, gpus: Option<u32>, time: Option<&str>) -> String {
    let parts: Vec<String> = [
        nodes.map(|nodes| format!("up to {nodes} nodes")),
        gpus.map(|gpus| format!("{gpus} GPUs each")),
        time.map(|time| format!("{time} at most")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn field(key: &str, name: &str, hint: &str, usual: &str, mode: &str) -> Markup {
    html! {
        div.field {
            label for=(key) { (name) }
            input id=(key) name=(key) type="text" inputmode=(mode) autocomplete="off" placeholder=(usual)
                aria-describedby={ (key) "-hint" };
            small id={ (key) "-hint" } { (hint) }
        }
    }
}

fn choice<'a>(
    key: &str,
    name: &str,
    hint: &str,
    usual: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Markup {
    html! {
        div.field {
            label for=(key) { (name) }
            select id=(key) name=(key) aria-describedby={ (key) "-hint" } {
                option value="" { (usual) }
                @for word in words.into_iter().filter(|word| *word != usual) { option value=(word) { (word) } }
            }
            small id={ (key) "-hint" } { (hint) }
        }
    }
}

/// Where the script is shown and changed.
pub fn script() -> Markup {
    html! {
        div #script hidden {
            h2 { label for="script-text" { "The script" } }
            p.hint {
                "What is shown is what is started. “JOB” becomes the new job's own folder. As long as you change nothing here, it "
                "follows what you choose above."
            }
            textarea.code id="script-text" spellcheck="false" autocapitalize="off" autocomplete="off" rows="24" {}
            div.actions {
                button #reset-script type="button" hidden { "Undo my changes" }
            }
        }
    }
}
