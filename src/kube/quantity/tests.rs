use super::*;

fn quantity(text: &str) -> Quantity {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_suffix_means_what_the_api_says() {
    for (text, bytes) in [
        ("0", 0),
        ("1", 1),
        ("+1", 1),
        ("007", 7),
        ("1k", 1_000),
        ("1M", 1_000_000),
        ("1G", 1_000_000_000),
        ("1T", 1_000_000_000_000),
        ("1P", 1_000_000_000_000_000),
        ("1E", 1_000_000_000_000_000_000),
        ("1Ki", 1 << 10),
        ("1Mi", 1 << 20),
        ("1Gi", 1 << 30),
        ("1Ti", 1 << 40),
        ("1Pi", 1 << 50),
        ("1Ei", 1 << 60),
        ("1.5Gi", 3 << 29),
        (".5Ki", 512),
        ("5.", 5),
        ("1e3", 1_000),
        ("1E3", 1_000),
        ("1e+3", 1_000),
        ("2500e-1", 250),
        ("0.000000001E", 1_000_000_000),
    ] {
        assert_eq!(quantity(text).to_bytes(), bytes, "{text}");
    }
    for (text, millis) in [
        ("1", 1000),
        ("250m", 250),
        ("0.25", 250),
        ("1.5", 1500),
        ("100u", 1),
        ("1n", 1),
        ("0.1m", 1),
        ("2k", 2_000_000),
    ] {
        assert_eq!(quantity(text).to_millis(), millis, "{text}");
    }
}

#[test]
fn amounts_are_compared_not_spellings() {
    assert_eq!(quantity("1Gi"), quantity("1024Mi"));
    assert_eq!(quantity("1000m"), quantity("1"));
    assert_eq!(quantity("0.1"), quantity("100m"));
    assert_eq!(quantity("1e3"), quantity("1k"));
    assert_eq!(quantity("-0"), quantity("0"));
    assert!(quantity("1Gi") > quantity("1G"));
    assert!(quantity("-1") < quantity("0"));
    assert!(quantity("999m") < quantity("1"));
    assert!(quantity("-1").is_negative());
    assert!(!quantity("512m").is_whole());
    assert!(quantity("1.5Gi").is_whole());
}

#[test]
fn a_quantity_prints_as_it_was_written() {
    for text in ["1.50Gi", "+1", "1e3", "0100m"] {
        assert_eq!(quantity(text).to_string(), text);
    }
}

#[test]
fn amounts_are_rounded_up_and_capped() {
    assert_eq!(quantity("0.5").to_bytes(), 1);
    assert_eq!(quantity("1.000000000001").to_bytes(), 2);
    assert_eq!(quantity("0.0000000000000000000001").to_millis(), 1);
    assert_eq!(quantity("1e-300"), quantity("1n"));
    assert_eq!(quantity("0.0000000000000000000000001Ki"), quantity("1n"));
    let largest = u64::try_from(i64::MAX).expect("positive");
    for text in [
        "9223372036854775807",
        "9223372036854775808",
        "8Ei",
        "16Ei",
        "9999999999999999999Ei",
        "1e19",
        "1e2147483647",
        "99999999999999999999999999999999999999999999999999",
    ] {
        assert_eq!(quantity(text).to_bytes(), largest, "{text}");
    }
    assert_eq!(quantity("9Ei").to_millis(), u64::MAX);
    assert_eq!(quantity("-5").to_bytes(), 0);
    assert_eq!(quantity("0e2147483647").to_bytes(), 0);
}

#[test]
fn what_is_no_quantity_is_refused_with_a_guess() {
    for (text, guess) in [
        ("", None),
        (".", None),
        ("-", None),
        ("Gi", None),
        ("1..2", None),
        ("1.2.3", None),
        ("--1", None),
        ("1e", None),
        ("1e99999999999", None),
        ("one", None),
        ("0x10", None),
        ("١", None),
        ("12MB", Some("12M")),
        ("12MiB", Some("12Mi")),
        ("12mi", Some("12Mi")),
        ("12K", Some("12k")),
        ("12 Gi", Some("12Gi")),
        (" 12", Some("12")),
        ("1.5gb", Some("1.5G")),
    ] {
        let error = text
            .parse::<Quantity>()
            .expect_err(&format!("{text:?} is no quantity"))
            .to_string();
        assert!(error.starts_with("quantities must match"), "{error}");
        match guess {
            Some(guess) => assert!(
                error.ends_with(&format!("(did you mean {guess:?}?)")),
                "{error}"
            ),
            None => assert!(!error.contains("did you mean"), "{text}: {error}"),
        }
    }
    let long = "1".repeat(1 << 20).parse::<Quantity>();
    assert!(long.expect_err("too long").to_string().len() < 1000);
}

/// A small reproducible stream of numbers.
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}

#[test]
fn for_any_amount_the_spellings_agree() {
    let mut next = numbers(0x0123_4567_89ab_cdef);
    for _ in 0..3_000 {
        let n = next() >> (next() % 60 + 4);
        let plain = quantity(&n.to_string());
        assert_eq!(plain.to_bytes(), n.min(i64::MAX.unsigned_abs()));
        assert_eq!(plain, quantity(&format!("{n}.000")));
        assert_eq!(plain, quantity(&format!("{n}000m")));
        assert_eq!(plain, quantity(&format!("{n}e0")));
        let kibi = quantity(&format!("{n}Ki"));
        let thousand = quantity(&format!("{n}k"));
        assert!(kibi >= thousand && thousand >= plain);
        if n < 1 << 50 {
            assert_eq!(kibi.to_bytes(), n * 1024);
            assert_eq!(quantity(&format!("{n}.5Ki")).to_bytes(), n * 1024 + 512);
            assert_eq!(quantity(&format!("{n}m")).to_millis(), n);
            assert_eq!(quantity(&format!("{n}m")).to_bytes(), n.div_ceil(1000));
            assert_eq!(quantity(&format!("-{n}")).cmp(&plain), 0.cmp(&n));
        }
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let alphabet = b"0123456789..+-eEinumkKMGTPi\xc3\xa9 ";
    let mut next = numbers(0xfeed_beef_cafe_f00d);
    for _ in 0..20_000 {
        let length = next() % 12;
        let bytes: Vec<u8> = (0..length)
            .map(|_| usize::try_from(next()).expect("64 bits"))
            .map(|pick| alphabet[pick % alphabet.len()])
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(quantity) = text.parse::<Quantity>() {
            let same: Quantity = quantity.to_string().parse().expect("prints a quantity");
            assert_eq!(same, quantity);
        }
    }
}
