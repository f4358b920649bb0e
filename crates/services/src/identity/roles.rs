//! ARNs of roles.

/// The role that every account is born with.
pub(crate) const DEFAULT: &str = "lambda";
/// The pattern of a role's ARN in the public API model.
pub(crate) const PATTERN: &str = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+";

/// The parts of a role's ARN that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Role<'a> {
    /// Its account.
    pub(crate) account: &'a str,
    /// Its name, without its path.
    pub(crate) name: &'a str,
}

/// Reads an ARN by [`PATTERN`].
pub(crate) fn parse(arn: &str) -> Option<Role<'_>> {
    let rest = arn.strip_prefix("arn:")?;
    let (partition, rest) = rest.split_once(':')?;
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'-';
    let is_partition = partition.is_empty()
        || partition.strip_prefix("aws").is_some_and(|tail| tail.bytes().all(is_letter));
    let (account, role) = rest.strip_prefix("iam::")?.split_once(':')?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let path = role.strip_prefix("role")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&byte);
    let name = path.rsplit('/').next()?;
    let is_path = !name.is_empty() && path.bytes().all(allowed);
    (is_partition && is_account && is_path).then_some(Role { account, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_arns_are_read() {
        let role = parse("arn:aws:iam::123456789012:role/service-role/lambda").expect("valid");
        assert_eq!(role, Role { account: "123456789012", name: "lambda" });
        assert!(parse("arn:aws-us-gov:iam::123456789012:role/x").is_some());
    }

    #[test]
    fn everything_else_is_refused() {
        for arn in [
            "",
            "lambda",
            "arn:aws:iam::12345678901:role/x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a b",
            "arn:azure:iam::123456789012:role/x",
            "arn:aws:iam:eu:123456789012:role/x",
        ] {
            assert_eq!(parse(arn), None, "{arn}");
        }
    }
}
