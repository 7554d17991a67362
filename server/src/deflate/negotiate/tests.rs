use super::*;

const ALL: Settings = Settings {
    server_bits: 15,
    client_bits: 15,
    server_takeover: true,
    client_takeover: true,
    mem_level: 8,
    level: 6,
    min_size: 0,
    content: super::super::Content::All,
};

fn direction(bits: u8, takeover: bool) -> Direction {
    Direction { bits, takeover }
}

/// The answer to `fields` without the extension's name, and what follows from it, or `None`.
fn answered(fields: &[&str], settings: &Settings) -> Option<(String, Direction, Direction)> {
    let (agreed, field) = answer(fields.iter().copied(), settings)?;
    let parameters = field.strip_prefix(NAME).unwrap().to_owned();
    Some((parameters, agreed.server(), agreed.client()))
}

#[test]
fn what_was_agreed_fits_a_byte() {
    for server in 9..=15 {
        for client in 8..=15 {
            for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
                let agreed = Agreed::new(direction(server, ours), direction(client, theirs));
                assert_eq!(agreed.server(), direction(server, ours));
                assert_eq!(agreed.client(), direction(client, theirs));
            }
        }
    }
    assert_eq!(size_of::<Option<Agreed>>(), 1);
    assert_eq!(Agreed::new(direction(8, true), direction(8, true)).server(), direction(9, true));
}

#[test]
fn an_offer_is_answered_with_what_it_asks_for() {
    for (offer, parameters, server, client) in [
        ("permessage-deflate", "", direction(15, true), direction(15, true)),
        (" Permessage-Deflate ", "", direction(15, true), direction(15, true)),
        (
            "permessage-deflate; server_no_context_takeover",
            "; server_no_context_takeover",
            direction(15, false),
            direction(15, true),
        ),
        (
            "permessage-deflate;client_no_context_takeover",
            "; client_no_context_takeover",
            direction(15, true),
            direction(15, false),
        ),
        (
            "permessage-deflate; server_max_window_bits=10",
            "; server_max_window_bits=10",
            direction(10, true),
            direction(15, true),
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            "; server_max_window_bits=15",
            direction(15, true),
            direction(15, true),
        ),
        ("permessage-deflate; client_max_window_bits", "", direction(15, true), direction(15, true)),
        (
            "permessage-deflate; client_max_window_bits = \"11\" ; server_max_window_bits=\"9\"",
            "; server_max_window_bits=9; client_max_window_bits=11",
            direction(9, true),
            direction(11, true),
        ),
        (
            "permessage-deflate; client_max_window_bits=8",
            "; client_max_window_bits=8",
            direction(15, true),
            direction(8, true),
        ),
    ] {
        assert_eq!(answered(&[offer], &ALL), Some((parameters.to_owned(), server, client)), "{offer}");
    }
}

#[test]
fn the_servers_own_limits_are_told() {
    let small = Settings { server_bits: 11, client_bits: 10, ..ALL };
    let limited = Some((
        "; server_max_window_bits=11; client_max_window_bits=10".to_owned(),
        direction(11, true),
        direction(10, true),
    ));
    for offer in ["client_max_window_bits", "client_max_window_bits=15; server_max_window_bits=12"] {
        assert_eq!(answered(&[&format!("permessage-deflate; {offer}")], &small), limited);
    }
    // One that cannot be told how large its window may be is told to keep none.
    assert_eq!(
        answered(&["permessage-deflate"], &small),
        Some((
            "; client_no_context_takeover; server_max_window_bits=11".to_owned(),
            direction(11, true),
            direction(15, false)
        ))
    );
    let forgetful = Settings { server_takeover: false, client_takeover: false, ..ALL };
    assert_eq!(
        answered(&["permessage-deflate"], &forgetful),
        Some((
            "; server_no_context_takeover; client_no_context_takeover".to_owned(),
            direction(15, false),
            direction(15, false)
        ))
    );
}

#[test]
fn bad_offers_are_declined() {
    for parameters in [
        "server_max_window_bits",
        "server_max_window_bits=",
        "server_max_window_bits=7",
        "server_max_window_bits=8",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=+10",
        "server_max_window_bits=10; server_max_window_bits=10",
        "server_max_window_bits=\"10",
        "server_max_window_bits=1\"0\"",
        "server_max_window_bits=\"1\\0\"",
        "client_max_window_bits=16",
        "client_max_window_bits=1e1",
        "client_max_window_bits=",
        "client_max_window_bits; client_max_window_bits=10",
        "server_no_context_takeover=1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover=\"\"",
        "client_no_context_takeover; client_no_context_takeover",
        "unknown",
        "unknown=1",
        "",
    ] {
        let offer = format!("permessage-deflate; {parameters}");
        assert_eq!(answered(&[&offer], &ALL), None, "{offer}");
    }
    for field in ["", ",", "x-webkit-deflate-frame", "deflate", "permessage-deflatex", "\u{e9}"] {
        assert_eq!(answered(&[field], &ALL), None, "{field}");
    }
}

#[test]
fn the_first_good_offer_is_taken_wherever_it_stands() {
    let taken = |fields: &[&str]| answered(fields, &ALL).unwrap().0;
    let bad = "permessage-deflate; server_max_window_bits=8";
    let (nine, ten) =
        ("permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_max_window_bits=10");
    let expected = "; server_max_window_bits=10";
    assert_eq!(taken(&[ten, nine]), expected);
    assert_eq!(taken(&[&format!("{ten}, {nine}")]), expected);
    assert_eq!(taken(&[&format!("{bad}, {ten}, {nine}")]), expected);
    assert_eq!(taken(&["x-other; a=\"permessage-deflate, \\\" ;\"", bad, ten]), expected);
    // A comma or a semicolon in quotes separates nothing.
    assert_eq!(taken(&[&format!("permessage-deflate; x=\"1, {nine}\", {ten}")]), expected);
}

#[test]
fn what_the_client_offers_the_server_can_answer() {
    let bits = [9, 12, 15];
    for server_bits in bits {
        for client_bits in bits {
            for (server_takeover, client_takeover) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let wishes = Settings { server_bits, client_bits, server_takeover, client_takeover, ..ALL };
                for settings in [wishes, ALL, Settings { server_bits: 9, client_bits: 9, ..ALL }] {
                    let (agreed, field) = answer([offer(&wishes).as_str()], &settings).unwrap();
                    assert_eq!(judge([field.as_str()], &wishes), Ok(Some(agreed)));
                    assert!(agreed.server().bits <= server_bits && agreed.client().bits <= client_bits);
                }
            }
        }
    }
}

#[test]
fn an_answer_that_does_not_fit_the_offer_is_refused() {
    let judged = |field: &str, settings: &Settings| judge([field], settings);
    let small = Settings { server_bits: 10, client_bits: 10, server_takeover: false, ..ALL };
    let fit = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
    let expected = Agreed::new(direction(10, false), direction(10, true));
    assert_eq!(judged(fit, &small), Ok(Some(expected)));
    for (field, settings, problem) in [
        ("permessage-deflate", &small, BadAnswer::Unfit),
        ("permessage-deflate; server_max_window_bits=10", &small, BadAnswer::Unfit),
        ("permessage-deflate; server_no_context_takeover", &small, BadAnswer::Unfit),
        (
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
            &small,
            BadAnswer::Unfit,
        ),
        (&format!("{fit}; client_max_window_bits=11"), &small, BadAnswer::Unfit),
        (&format!("{fit}; client_max_window_bits=8"), &small, BadAnswer::TooSmall),
        (&format!("{fit}; client_max_window_bits"), &small, BadAnswer::Malformed),
        (&format!("{fit}; server_max_window_bits=10"), &small, BadAnswer::Malformed),
        (&format!("{fit}; unknown"), &small, BadAnswer::Malformed),
        (&format!("{fit}, permessage-deflate"), &small, BadAnswer::NotOffered),
        ("x-other", &ALL, BadAnswer::NotOffered),
        ("permessage-deflate; server_max_window_bits", &ALL, BadAnswer::Malformed),
        ("permessage-deflate; server_max_window_bits=16", &ALL, BadAnswer::Malformed),
    ] {
        assert_eq!(judged(field, settings), Err(problem), "{field}");
    }
    assert_eq!(judge([], &ALL), Ok(None));
    assert_eq!(judged(" ", &ALL), Ok(None));
    // What RFC 7692 lets a server say unasked.
    let unasked = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                   server_max_window_bits=8; client_max_window_bits=9";
    let expected = Agreed::new(direction(9, false), direction(9, false));
    assert_eq!(judged(unasked, &ALL), Ok(Some(expected)));
}
