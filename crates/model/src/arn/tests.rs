//! Every form of a function's name, by the pattern and beyond it.

use proptest::prelude::*;
use proptest::string::string_regex;

use super::*;

fn parse(text: &str) -> FunctionRef {
    text.parse().expect("a valid reference")
}

#[test]
fn every_documented_form_is_read() {
    assert_eq!(parse("hello").name.as_str(), "hello");
    assert_eq!(parse("hello:live").qualifier, Some(Qualifier::Alias("live".into())));
    let partial = parse("123456789012:function:hello:3");
    assert_eq!(partial.account.as_ref().map(AccountId::as_str), Some("123456789012"));
    assert_eq!(partial.qualifier, Some(Qualifier::Version(3)));
    let whole = parse("arn:aws:lambda:eu-west-1:123456789012:function:hello:$LATEST");
    assert_eq!(whole.region.as_ref().map(Region::as_str), Some("eu-west-1"));
    assert_eq!(whole.qualifier, Some(Qualifier::Latest));
}

#[test]
fn an_arn_survives_its_text_form() {
    let text = "arn:aws:lambda:eu-west-1:123456789012:function:hello:live";
    let reference = parse(text);
    let account = AccountId::new("000000000000").expect("valid");
    let key = reference.key(&account, &Region::new("us-east-1").expect("valid"));
    assert_eq!(key.qualified_arn(reference.qualifier).to_string(), text);
}

#[test]
fn every_form_of_the_pattern_is_read() {
    type Parts = (Option<&'static str>, Option<&'static str>, &'static str, &'static str);
    const ACCOUNT: Option<&str> = Some("123456789012");
    const REGION: Option<&str> = Some("us-east-1");
    let table: [(&str, Parts); 20] = [
        ("p1", (None, None, "p1", "")),
        ("p1:live", (None, None, "p1", "live")),
        ("function", (None, None, "function", "")),
        ("function:p1", (None, None, "p1", "")),
        ("function:p1:7", (None, None, "p1", "7")),
        ("function:function:live", (None, None, "function", "live")),
        ("function:$LATEST", (None, None, "function", "$LATEST")),
        ("123456789012", (None, None, "123456789012", "")),
        ("123456789012:p1", (None, ACCOUNT, "p1", "")),
        ("123456789012:$LATEST", (None, None, "123456789012", "$LATEST")),
        ("123456789012:function", (None, ACCOUNT, "function", "")),
        ("123456789012:function:p1:live", (None, ACCOUNT, "p1", "live")),
        ("function:123456789012:live", (None, None, "123456789012", "live")),
        ("us-east-1:p1", (REGION, None, "p1", "")),
        ("us-east-1:123456789012:function:p1", (REGION, ACCOUNT, "p1", "")),
        ("us-gov-west-1:function:p1", (Some("us-gov-west-1"), None, "p1", "")),
        ("attic:123456789012:function:p1", (Some("attic"), ACCOUNT, "p1", "")),
        ("arn:aws:lambda:p1", (None, None, "p1", "")),
        ("arn::lambda:us-east-1:123456789012:function:p1", (REGION, ACCOUNT, "p1", "")),
        ("arn:aws:lambda:attic:123456789012:function:p1", (Some("attic"), ACCOUNT, "p1", "")),
    ];
    for (text, (region, account, name, qualifier)) in table {
        let read = parse(text);
        assert_eq!(read.region.as_ref().map(Region::as_str), region, "{text}");
        assert_eq!(read.account.as_ref().map(AccountId::as_str), account, "{text}");
        assert_eq!(read.name.as_str(), name, "{text}");
        let found = read.qualifier.map(|q| q.to_string()).unwrap_or_default();
        assert_eq!(found, qualifier, "{text}");
    }
}

#[test]
fn other_services_and_paths_are_refused_with_the_pattern() {
    for text in [
        "",
        ":",
        "a:",
        ":a",
        "a:b:c",
        "function:",
        "p1:$latest",
        "arn:aws:s3:::bucket",
        "arn:azure:lambda:us-east-1:123456789012:function:p1",
        "arn:aws:lambda::123456789012:function:p1",
        "arn:aws:lambda:us-east-1:123456789012:layer:p1:3",
        "../x",
        "a/b",
        "1:function:x",
    ] {
        let error = text.parse::<FunctionRef>().expect_err(text);
        assert_eq!(error.kind(), Kind::Constraint, "{text}");
        assert!(error.public().ends_with(PATTERN), "{text}");
    }
}

#[test]
fn what_matches_the_pattern_is_refused_for_another_reason() {
    let (name, alias) = ("n".repeat(65), format!("p1:{}", "a".repeat(129)));
    for (text, kind, part) in [
        ("arn:aws-cn:lambda:cn-north-1:123456789012:function:p1", Kind::NotFound, "'aws-cn'"),
        ("arn:aws-us-gov:lambda:p1", Kind::NotFound, "'aws-us-gov'"),
        (name.as_str(), Kind::Constraint, "[a-zA-Z0-9-_]{1,64}"),
        (alias.as_str(), Kind::Constraint, "length less than or equal to 128"),
    ] {
        let error = text.parse::<FunctionRef>().expect_err(text);
        assert_eq!(error.kind(), kind, "{text}");
        assert!(error.public().contains(part), "{}", error.public());
        assert!(!error.public().contains(PATTERN), "{text}");
    }
}

proptest! {
    #[test]
    fn what_matches_the_pattern_is_never_refused_with_it(
        // A digit of the pattern is an ASCII one.
        text in string_regex(&PATTERN.replace(r"\d", "[0-9]")).expect("a pattern"),
    ) {
        if let Err(error) = text.parse::<FunctionRef>() {
            prop_assert!(!error.public().contains(PATTERN), "{}", text);
        }
    }

    #[test]
    fn hostile_references_are_refused_without_a_panic(text in "\\PC{0,200}") {
        let _parsed = text.parse::<FunctionRef>().is_ok();
    }
}
