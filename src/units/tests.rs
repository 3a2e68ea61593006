use proptest::prelude::*;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use super::*;

fn size(text: &str) -> Result<u64, ByteSizeError> {
    text.parse().map(|ByteSize(bytes)| bytes)
}

fn period(text: &str) -> Result<Duration, PeriodError> {
    text.parse().map(|Period(duration)| duration)
}

#[test]
fn sizes_are_bytes_with_decimal_and_binary_units() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("1kB", 1_000),
        ("1KB", 1_000),
        ("64KiB", 65_536),
        ("10MB", 10_000_000),
        ("10MiB", 10_485_760),
        ("1GiB", 1 << 30),
        ("3GB", 3_000_000_000),
        ("2TB", 2_000_000_000_000),
        ("1TiB", 1 << 40),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
}

#[test]
fn sizes_that_are_unclear_are_refused() {
    use ByteSizeError::*;
    for (text, error) in [
        ("", NoNumber),
        ("KiB", NoNumber),
        ("-1", NoNumber),
        (" 1", NoNumber),
        ("1.5GB", Fraction),
        ("1,5GB", Fraction),
        ("10k", UnknownUnit),
        ("10M", UnknownUnit),
        ("10Mb", UnknownUnit),
        ("10mb", UnknownUnit),
        ("10 MB", UnknownUnit),
        ("1_000", UnknownUnit),
        ("1KiB2", UnknownUnit),
    ] {
        assert_eq!(size(text), Err(error), "{text}");
    }
}

#[test]
fn the_largest_size_is_two_to_the_64_less_one() {
    assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(size("18446744073709551616"), Err(ByteSizeError::TooLarge));
    assert_eq!(size("16777215TiB"), Ok(16_777_215 << 40));
    assert_eq!(size("16777216TiB"), Err(ByteSizeError::TooLarge));
}

#[test]
fn sizes_print_in_the_unit_that_makes_them_shortest() {
    for (bytes, text) in [
        (0, "0"),
        (1, "1"),
        (1_000, "1KB"),
        (1_024, "1KiB"),
        (1_500, "1500"),
        (1_024_000, "1000KiB"),
        (10_000_000, "10MB"),
        (64 << 20, "64MiB"),
        (1 << 40, "1TiB"),
    ] {
        assert_eq!(ByteSize(bytes).to_string(), text);
    }
}

#[test]
fn periods_are_numbers_with_units() {
    for (text, millis) in [
        ("0", 0),
        ("0s", 0),
        ("500ms", 500),
        ("30s", 30_000),
        ("90s", 90_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("1m0s", 60_000),
    ] {
        assert_eq!(period(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    assert_eq!(period("1us5ns"), Ok(Duration::from_nanos(1_005)));
}

#[test]
fn periods_that_are_unclear_are_refused() {
    use PeriodError::*;
    for (text, error) in [
        ("", NoNumber),
        ("s", NoNumber),
        ("-5s", NoNumber),
        ("1h m", NoNumber),
        ("30", NoUnit),
        ("00", NoUnit),
        ("1h30", NoUnit),
        ("1.5s", Fraction),
        ("5 m", UnknownUnit),
        ("5min", UnknownUnit),
        ("5M", UnknownUnit),
        ("5w", UnknownUnit),
        ("30m1h", Order),
        ("1s1s", Order),
    ] {
        assert_eq!(period(text), Err(error), "{text}");
    }
}

#[test]
fn the_longest_period_is_that_of_duration() {
    assert_eq!(period("18446744073709551615s"), Ok(Duration::from_secs(u64::MAX)));
    assert_eq!(period("18446744073709551616s"), Err(PeriodError::TooLarge));
    assert_eq!(period(&format!("{}d", "9".repeat(60))), Err(PeriodError::TooLarge));
}

#[test]
fn periods_print_as_people_write_them() {
    for (millis, text) in
        [(0, "0s"), (500, "500ms"), (90_000, "1m30s"), (5_400_000, "1h30m"), (604_800_000, "7d")]
    {
        assert_eq!(Period(Duration::from_millis(millis)).to_string(), text);
    }
}

#[test]
fn errors_say_what_is_expected() {
    let size_error = size("10k").unwrap_err().to_string();
    assert!(size_error.contains("unit") && size_error.contains("64KiB"), "{size_error}");
    let period_error = period("30").unwrap_err().to_string();
    assert!(period_error.contains("30s, not 30") && period_error.contains("1h30m"));
}

fn read<'de, T: Deserialize<'de>>(
    value: impl IntoDeserializer<'de, ValueError>,
) -> Result<T, String> {
    T::deserialize(value.into_deserializer()).map_err(|error| error.to_string())
}

#[test]
fn a_size_is_read_from_a_number_or_a_text() {
    assert_eq!(read::<ByteSize>(512_u64), Ok(ByteSize(512)));
    assert_eq!(read::<ByteSize>(512_i64), Ok(ByteSize(512)));
    assert_eq!(read::<ByteSize>("64KiB"), Ok(ByteSize(65_536)));
    assert!(read::<ByteSize>(-1_i64).unwrap_err().contains("never negative"));
    assert!(read::<ByteSize>(1.5_f64).unwrap_err().contains("decimal point"));
    assert!(read::<ByteSize>("10k").unwrap_err().starts_with("invalid size \"10k\": "));
    assert!(read::<ByteSize>(true).unwrap_err().contains("a size such as"));
}

#[test]
fn a_period_is_read_from_a_text_or_zero() {
    assert_eq!(read::<Period>(0_u64), Ok(Period(Duration::ZERO)));
    assert_eq!(read::<Period>(0_i64), Ok(Period(Duration::ZERO)));
    assert_eq!(read::<Period>("5m"), Ok(Period(Duration::from_secs(300))));
    assert!(read::<Period>(30_u64).unwrap_err().contains("30s, not 30"));
    assert!(read::<Period>(-1_i64).unwrap_err().contains("never negative"));
    assert!(read::<Period>("5min").unwrap_err().starts_with("invalid duration \"5min\": "));
    assert!(read::<Period>(true).unwrap_err().contains("a duration such as"));
}

#[test]
fn schemas_have_a_pattern_and_examples_that_parse() {
    let mut generator = schemars::SchemaGenerator::default();
    for schema in [
        <ByteSize as schemars::JsonSchema>::json_schema(&mut generator),
        <Period as schemars::JsonSchema>::json_schema(&mut generator),
    ] {
        assert!(schema.get("pattern").is_some_and(|pattern| pattern.is_string()));
        let examples = schema.get("examples").and_then(|e| e.as_array().cloned()).unwrap();
        for example in examples {
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            assert!(size(&text).is_ok() || period(&text).is_ok(), "{text}");
        }
    }
}

#[test]
fn plain_numbers_are_written_as_numbers() {
    // The schema of a value holds the value, as serde writes it, for its example.
    fn written(schema: &schemars::Schema) -> String {
        schema.get("examples").and_then(|examples| examples.get(0)).unwrap().to_string()
    }
    assert_eq!(written(&schemars::schema_for_value!(ByteSize(513))), "513");
    assert_eq!(written(&schemars::schema_for_value!(ByteSize(1_024))), "\"1KiB\"");
    assert_eq!(written(&schemars::schema_for_value!(Period(Duration::from_secs(90)))), "\"1m30s\"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_a_size_prints_it_reads_back(
        bytes in prop_oneof![any::<u64>(), (0..=16_u32, 0..40_u32).prop_map(|(n, s)| u64::from(n) << s)]
    ) {
        prop_assert_eq!(size(&ByteSize(bytes).to_string()), Ok(bytes));
    }

    #[test]
    fn what_a_period_prints_it_reads_back(seconds: u64, nanos in 0..1_000_000_000_u32) {
        let duration = Duration::new(seconds, nanos);
        prop_assert_eq!(period(&Period(duration).to_string()), Ok(duration));
    }

    #[test]
    fn any_text_has_an_answer(text in "[0-9a-zA-Z ._-]{0,12}|\\PC{0,8}") {
        let _ = size(&text);
        let _ = period(&text);
    }
}
