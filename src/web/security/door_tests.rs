use std::sync::Arc;

use super::*;

fn cookie(set: &str) -> HeaderMap {
    let pair = set.split(';').next().expect("a cookie");
    [(header::COOKIE, format!("other=1; {pair}").parse().expect("a header"))].into_iter().collect()
}

/// A door without a secret, and the one-time address it told last.
fn door_by_address() -> (Door, Arc<Mutex<String>>) {
    let told = Arc::new(Mutex::new(String::new()));
    let keep = told.clone();
    let announce = move |address: &str| *lock(&keep) = address.to_owned();
    let door = Door::new("http://127.0.0.1:1/login".into(), 1, None, None, Box::new(announce));
    door.announce();
    (door, told)
}

fn token(told: &Mutex<String>) -> String {
    lock(told).rsplit_once("?token=").expect("a one-time address").1.to_owned()
}

#[test]
fn an_address_opens_once_and_another_is_told() {
    let (door, told) = door_by_address();
    let first = token(&told);
    assert_eq!(first.len(), 2 * RANDOM_BYTES);
    door.knock("a", &first).expect("right");
    let second = token(&told);
    assert_ne!(first, second);
    assert!(matches!(door.knock("a", &first), Err(Refusal::Wrong(_))), "used up");
    door.knock("a", &second).expect("the new one is good");
    assert!(matches!(door.knock("a", ""), Err(Refusal::Wrong(_))));
}

#[test]
fn too_many_wrong_tries_shut_the_door_for_the_right_word_too() {
    let (door, told) = door_by_address();
    for _ in 0..5 {
        assert!(matches!(door.knock("a", "guess"), Err(Refusal::Wrong(_))));
    }
    let refused = door.knock("a", &token(&told)).expect_err("locked out");
    assert!(refused.to_string().contains("wait 15 seconds"), "{refused}");
    door.knock("b", &token(&told)).expect("others may");
}

#[test]
fn sessions_are_known_by_their_cookie_alone_and_end() {
    let (door, _) = door_by_address();
    let set = door.sign_in("Ada", true);
    assert!(set.starts_with("harvest_1=") && set.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{set}");
    let headers = cookie(&set);
    assert_eq!(door.visitor(&headers), Some(Visitor { name: "Ada".into() }));
    assert_eq!(door.visitor(&cookie("harvest_1=0000")), None);
    assert_eq!(door.visitor(&cookie(&set.replace("harvest_1", "harvest_2"))), None);
    door.rename(&headers, "Grace");
    assert_eq!(door.visitor(&headers), Some(Visitor { name: "Grace".into() }));
    door.sign_out(&headers);
    assert_eq!(door.visitor(&headers), None);
}

#[cfg(unix)]
#[test]
fn sessions_outlive_the_server_but_not_their_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("sessions.json");
    let door = |secret: &str| {
        Door::new(String::new(), 1, Some(Secret(digest(secret))), Some(file.clone()), Box::new(|_| {}))
    };
    let set = door("one").sign_in("Ada", false);
    let mode = fs::metadata(&file).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let id = set.split(['=', ';']).nth(1).expect("an id").to_owned();
    assert!(!fs::read_to_string(&file).expect("text").contains(&id), "the id itself is not kept");
    assert!(door("one").visitor(&cookie(&set)).is_some());
    assert!(door("two").visitor(&cookie(&set)).is_none());
    fs::write(&file, "rubbish").expect("writable");
    assert!(door("one").visitor(&cookie(&set)).is_none());
}

#[cfg(unix)]
#[test]
fn secret_files_are_made_private_and_refused_if_they_are_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("secret");
    Secret::of_file(&file).expect("made");
    let text = fs::read_to_string(&file).expect("it is there");
    assert_eq!(text.trim().len(), 2 * RANDOM_BYTES);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    Secret::of_file(&file).expect("read again");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
    let error = Secret::of_file(&file).expect_err("others may read it").to_string();
    assert!(error.contains("chmod 600"), "{error}");
    fs::remove_file(&file).expect("ours");
    write_private(&file, b"short\n").expect("writable");
    assert!(matches!(Secret::of_file(&file), Err(SecretError::Short { .. })));
}
