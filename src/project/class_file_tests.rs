//! Classes change in the file, and nothing else does.

use std::path::Path;

use proptest::prelude::*;

use super::super::FILE;
use super::*;

const WRITTEN: &str = r##"# Our leaves.

[project]
name = "leaves"   # for the title

# Kinds: see the manual.
[classes]
kind = "categorical"

[classes.names]
# seen in every field
0 = "healthy"
# the orange one
1 = "rust"  # Puccinia
5 = "mildew"

[classes.colours]
5 = "#dddddd" # white as it is

# The images.
[data]
root = "pictures"

[training]
epochs = 60 # enough
"##;

fn project(folder: &Path, text: &str) -> Project {
    std::fs::write(folder.join(FILE), text).expect("writable");
    Project::open(folder).expect("the text is good")
}

fn text(project: &Project) -> String {
    std::fs::read_to_string(project.file()).expect("readable")
}

fn add(name: &str) -> ClassChange {
    ClassChange::Add { name: name.into(), colour: None, description: String::new() }
}

fn names(classes: &Classes) -> Vec<&str> {
    classes.displayed().map(|class| class.name.as_str()).collect()
}

#[test]
fn all_else_in_the_file_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let project = project(folder.path(), WRITTEN);
    let colour = "#123456".parse().expect("a colour");
    let changes = [
        ClassChange::Add { name: "blight ".into(), colour: Some(colour), description: " brown rings".into() },
        ClassChange::Change { id: 1, name: Some("leaf rust".into()), colour: None, description: None },
        ClassChange::Change { id: 5, name: None, colour: Some(colour), description: Some("flour".into()) },
        ClassChange::Reorder { ids: vec![5, 0, 6, 1] },
        ClassChange::Retire { id: 1 },
    ];
    let project = changes.iter().try_fold(project, |project, change| project.change_classes(change, None));
    let project = project.expect("every change makes sense");
    let expected = r##"# Our leaves.

[project]
name = "leaves"   # for the title

# Kinds: see the manual.
[classes]
kind = "categorical"
order = [5, 0, 6]

[classes.names]
# seen in every field
0 = "healthy"
5 = "mildew"
6 = "blight"

[classes.colours]
5 = "#123456" # white as it is
6 = "#123456"

[classes.descriptions]
6 = "brown rings"
5 = "flour"

# Merged or deleted. The history still needs the names; the numbers stay taken.
[classes.retired]
# the orange one
1 = "leaf rust"  # Puccinia

# The images.
[data]
root = "pictures"

[training]
epochs = 60 # enough
"##;
    assert_eq!(text(&project), expected);
    let revived = project.change_classes(&ClassChange::Revive { id: 1 }, None).expect("it was there");
    assert_eq!(names(revived.classes()), ["mildew", "healthy", "blight", "leaf rust"]);
    assert!(
        text(&revived).contains("\n# the orange one\n1 = \"leaf rust\"  # Puccinia\n"),
        "{}",
        text(&revived)
    );
    assert_eq!(Project::open(folder.path()).expect("good").classes(), revived.classes());
}

#[test]
fn other_ways_of_writing_it_work_too() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for written in [
        "",
        "[classes.names]\n0 = \"a\"\n1 = \"b\"\n",
        "[classes]\nnames = { 0 = \"a\", 1 = \"b\" } # two\n",
        "classes = { names = { 0 = \"a\", 1 = \"b\" } }\n",
        "classes.names.0 = \"a\"\nclasses.names.1 = \"b\"\n[training]\nepochs = 3\n",
        "[classes]\nnames.0 = \"a\"\nnames.1 = 'b'\norder = [1, 0]\n",
    ] {
        let mut project = project(folder.path(), written);
        let empty = project.classes().is_empty();
        for change in [
            add("c"),
            ClassChange::Change {
                id: 0,
                name: None,
                colour: Some(Colour([1, 2, 3])),
                description: Some("d".into()),
            },
            add("e"),
            ClassChange::Retire { id: 1 },
            ClassChange::Revive { id: 1 },
        ] {
            project = project
                .change_classes(&change, None)
                .unwrap_or_else(|error| panic!("{change:?} of\n{}: {error}", text(&project)));
            assert_eq!(Project::open(folder.path()).expect("good").classes(), project.classes(), "{written}");
        }
        assert_eq!(project.classes().len(), if empty { 2 } else { 4 });
        assert_eq!(text(&project).contains("# two"), written.contains("# two"));
        assert_eq!(text(&project).contains("epochs = 3"), written.contains("epochs"));
    }
}

#[test]
fn what_stands_above_the_classes_stays_above_them() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let written = "# of the field\n[classes.names] # two\n0 = \"a\"\n1 = \"b\"\n";
    let project = project(folder.path(), written);
    let project = project.change_classes(&ClassChange::Reorder { ids: vec![1, 0] }, None).expect("good");
    let expected =
        "# of the field\n[classes]\norder = [1, 0]\n\n[classes.names] # two\n0 = \"a\"\n1 = \"b\"\n";
    assert_eq!(text(&project), expected);
}

#[test]
fn an_edit_by_hand_is_read_before_writing() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let opened = project(folder.path(), WRITTEN);
    std::fs::write(folder.path().join(FILE), WRITTEN.replace("\"mildew\"", "\"white mildew\""))
        .expect("writable");
    let changed = opened.change_classes(&add("blight"), None).expect("both fit");
    assert_eq!(names(changed.classes()), ["healthy", "rust", "white mildew", "blight"]);
    std::fs::write(folder.path().join(FILE), "[classes\n").expect("writable");
    let error = changed.change_classes(&add("more"), None).expect_err("it is broken").to_string();
    assert!(error.contains("harvest.toml:1"), "{error}");
    assert_eq!(text(&changed), "[classes\n", "untouched");
}

#[test]
fn numbers_are_not_given_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut project = project(folder.path(), WRITTEN);
    for change in [add("a"), ClassChange::Retire { id: 6 }, add("b")] {
        project = project.change_classes(&change, None).expect("good");
    }
    assert_eq!(project.classes().named("b").expect("added").id, 7);
    project = project.change_classes(&add("c"), Some(40)).expect("good");
    assert_eq!(project.classes().named("c").expect("added").id, 41, "the history has seen 40");
    assert!(project.change_classes(&add("d"), Some(u16::MAX)).is_err());
    // The name of a class that is no more may be used; should that come back, it steps aside.
    project = project.change_classes(&add("a"), None).expect("the name is free");
    project = project.change_classes(&ClassChange::Revive { id: 6 }, None).expect("it was there");
    assert_eq!(project.classes().name_of(6), Some("a (2)"));
}

#[test]
fn kinds_and_names_keep_their_rules() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let retire = ClassChange::Retire { id: 0 };
    let reorder = ClassChange::Reorder { ids: vec![1, 0] };
    let rename = ClassChange::Change { id: 0, name: Some("x".into()), colour: None, description: None };
    for (kind, allowed, words) in [
        ("binary", [false, false, true, true], "exactly two"),
        ("percentage", [false, false, false, true], "percentage bins"),
        ("categorical", [true, true, true, true], ""),
    ] {
        let written = format!("[classes]\nkind = \"{kind}\"\nnames = {{ 0 = \"a\", 1 = \"b\" }}\n");
        for (change, allowed) in [&add("c"), &retire, &reorder, &rename].into_iter().zip(allowed) {
            let result = project(folder.path(), &written).change_classes(change, None);
            assert_eq!(result.is_ok(), allowed, "{kind}: {change:?}");
            if let Err(error) = result {
                assert!(error.to_string().contains(words), "{error}");
            }
        }
    }
    for (change, words) in [
        (add("rust"), "`rust` twice"),
        (add(" "), "no name"),
        (add("Not sure"), "a label of its own"),
        (add(&"x".repeat(201)), "longer than 200"),
        (ClassChange::Retire { id: 9 }, "no number 9"),
        (ClassChange::Revive { id: 0 }, "no number 0"),
        (ClassChange::Reorder { ids: vec![0, 1] }, "other classes by now"),
        (ClassChange::Reorder { ids: vec![0, 1, 1, 5] }, "other classes by now"),
    ] {
        let error =
            project(folder.path(), WRITTEN).change_classes(&change, None).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn mistakes_in_the_file_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let names = "[classes]\nnames = { 0 = \"a\", 1 = \"b\" }\n";
    for (lines, words) in [
        (
            "colours = { 0 = \"red\" }",
            "`classes.colours` has for class 0 a value that cannot be used: `red` is no colour",
        ),
        ("colours = { 7 = \"#000000\" }", "`classes.colours` has the number 7, but no class has it"),
        ("descriptions = { 07 = \"x\" }", "`classes.descriptions` has the class number `07`"),
        ("order = [0, 7]", "`classes.order` has the number 7, which `classes.names` does not have"),
        ("order = [0, 0]", "`classes.order` has the number 0 twice"),
        ("retired = { 1 = \"b\" }", "`classes.retired` has the number 1, which `classes.names` has too"),
        (
            "kind = \"percentage\"\norder = [1, 0]",
            "`classes.order` cannot be another than that of the percentages",
        ),
        ("colors = { 0 = \"#000000\" }", "unknown key `classes.colors`; did you mean `classes.colours`?"),
    ] {
        std::fs::write(folder.path().join(FILE), format!("{names}{lines}\n")).expect("writable");
        let error = Project::open(folder.path()).map(drop).expect_err(lines).to_string();
        assert!(error.contains(words) && error.contains("harvest.toml:"), "{error}");
    }
}

fn any_change() -> impl Strategy<Value = ClassChange> {
    let id = 0u16..6;
    let colour = prop::option::of(any::<[u8; 3]>().prop_map(Colour));
    let name = "[a-c\"#=\\[]{1,3}";
    prop_oneof![
        (name, colour.clone(), "[ -~\n]{0,6}").prop_map(|(name, colour, description)| ClassChange::Add {
            name,
            colour,
            description
        }),
        (id.clone(), prop::option::of(name), colour, prop::option::of("[ -~\nß]{0,6}")).prop_map(
            |(id, name, colour, description)| ClassChange::Change { id, name, colour, description }
        ),
        id.clone().prop_map(|id| ClassChange::Retire { id }),
        id.prop_map(|id| ClassChange::Revive { id }),
        Just(vec![0u16, 1, 2]).prop_shuffle().prop_map(|ids| ClassChange::Reorder { ids }),
    ]
}

proptest! {
    #[test]
    fn the_file_says_what_the_program_knows(changes in prop::collection::vec(any_change(), 1..12)) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let written = "# top\n[classes.names]\n0 = \"x\" # x\n1 = \"y\"\n\n# end\n[training]\nepochs = 3\n";
        let mut project = project(folder.path(), written);
        for change in changes {
            let planned = project.classes().changed(&change, None);
            match project.change_classes(&change, None) {
                Ok(changed) => {
                    prop_assert_eq!(Some(changed.classes()), planned.as_ref().ok());
                    project = changed;
                }
                Err(ProjectError::Classes(error)) => prop_assert_eq!(Some(error), planned.err()),
                Err(error) => prop_assert!(false, "{}\n{}", error, text(&project)),
            }
            let opened = Project::open(folder.path()).expect("it stays valid");
            prop_assert_eq!(opened.classes(), project.classes());
            let text = text(&project);
            prop_assert!(text.starts_with("# top\n[classes"), "{}", text);
            prop_assert!(text.ends_with("\n# end\n[training]\nepochs = 3\n"), "{}", text);
        }
    }
}
