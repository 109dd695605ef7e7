use super::*;

/// What the tables below expand with.
fn variable(name: &str) -> Option<String> {
    let value = match name {
        "A" => "one",
        "B" => "two words",
        "EMPTY" => "",
        "PATH_" => "/usr/local/bin",
        "FILE" => "archive.tar.gz",
        "KO" => "한국어",
        "STAR" => "a*b?c\\d",
        "LINES" => "x\ny",
        "_u1" => "under",
        "DOLLAR" => "$A",
        "Q" => "'q'",
        "ab" => "lower",
        _ => return None,
    };
    Some(value.to_owned())
}

fn expand(text: &str) -> String {
    match Expander::new('\\').expand(text, &variable) {
        Ok(expansion) => expansion.text,
        Err(error) => format!("error: {error}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(expand(text), *expected, "{text}");
    }
}

#[test]
fn plain_references() {
    check(&[
        ("", ""),
        ("plain", "plain"),
        ("$A", "one"),
        ("${A}", "one"),
        ("$A$A", "oneone"),
        ("x$A-y", "xone-y"),
        ("$A.txt", "one.txt"),
        ("$AB", ""),
        ("${A}B", "oneB"),
        ("$_u1", "under"),
        ("$ab/$A", "lower/one"),
        ("$UNSET", ""),
        ("x${UNSET}y", "xy"),
        ("$KO", "한국어"),
        ("한$KO", "한한국어"),
        ("$", "$"),
        ("a$", "a$"),
        ("$ A", "$ A"),
        ("$/x", "$/x"),
        ("$.", "$."),
        ("$$", ""),
        ("$$A", "A"),
        ("$1", ""),
        ("$10x", "x"),
        ("$0", ""),
        ("$@", ""),
        ("$*", ""),
        ("$#", ""),
        ("$?", ""),
        ("$-", ""),
        ("$!", ""),
        ("${1}", ""),
        ("${@}", ""),
        ("${10}", ""),
        ("$DOLLAR", "$A"),
        ("$Q", "'q'"),
        ("$STAR", "a*b?c\\d"),
        ("{A}", "{A}"),
        ("}$A{", "}one{"),
        ("a b  c", "a b  c"),
    ]);
}

#[test]
fn quotes_and_escapes() {
    check(&[
        ("'$A'", "$A"),
        ("'a\\b'", "a\\b"),
        ("'\"'", "\""),
        ("\"$A\"", "one"),
        ("\"'$A'\"", "'one'"),
        ("\"\\$A\"", "$A"),
        ("\"\\\"\"", "\""),
        ("\"a\\\\b\"", "a\\b"),
        ("\"a\\b\"", "a\\b"),
        ("\"\\'\"", "\\'"),
        ("\\$A", "$A"),
        ("\\${A}", "${A}"),
        ("\\\\$A", "\\one"),
        ("\\'$A\\'", "'one'"),
        ("\\\"$A\\\"", "\"one\""),
        ("a\\b", "ab"),
        ("a\\ b", "a b"),
        ("a\\", "a"),
        ("\\\\", "\\"),
        ("\\한", "한"),
        ("\"\"", ""),
        ("''", ""),
        ("a''b\"\"c", "abc"),
        ("'a'\"b\"c", "abc"),
        ("\"${A}\"'${A}'${A}", "one${A}one"),
        ("it's", "error: unexpected end while looking for the matching single quote"),
        ("\"open", "error: unexpected end while looking for the matching double quote"),
        ("\"$A", "error: unexpected end while looking for the matching double quote"),
        ("'$A", "error: unexpected end while looking for the matching single quote"),
        ("\"a\\\"", "error: unexpected end while looking for the matching double quote"),
    ]);
}

#[test]
fn alternatives() {
    check(&[
        ("${A:-x}", "one"),
        ("${EMPTY:-x}", "x"),
        ("${UNSET:-x}", "x"),
        ("${A-x}", "one"),
        ("${EMPTY-x}", ""),
        ("${UNSET-x}", "x"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${UNSET:+x}", ""),
        ("${A+x}", "x"),
        ("${EMPTY+x}", "x"),
        ("${UNSET+x}", ""),
        ("${UNSET:-}", ""),
        ("${A:+}", ""),
        ("${UNSET:-$A}", "one"),
        ("${UNSET:-${A}}", "one"),
        ("${UNSET:-${EMPTY:-${A}}}", "one"),
        ("${UNSET:-${EMPTY:-deep}}x", "deepx"),
        ("${A:+${B}}", "two words"),
        ("${UNSET:-a b}", "a b"),
        ("${UNSET:-'a b'}", "a b"),
        ("${UNSET:-\"$A b\"}", "one b"),
        ("${UNSET:-'}'}", "}"),
        ("${UNSET:-\\}}", "}"),
        ("${UNSET:-a:b}", "a:b"),
        ("${UNSET:--}", "-"),
        ("${UNSET:-/path}", "/path"),
        ("${UNSET:-$UNSET}", ""),
        ("x${UNSET:-y}z", "xyz"),
        ("\"${UNSET:-x y}\"", "x y"),
        ("'${UNSET:-x}'", "${UNSET:-x}"),
        ("${UNSET:-x}${A:-y}", "xone"),
        ("${_u1:-x}", "under"),
        ("${UNSET:-한}", "한"),
    ]);
}

#[test]
fn refusals() {
    check(&[
        ("${A:?no}", "one"),
        ("${A?no}", "one"),
        ("${EMPTY?no}", ""),
        ("${EMPTY:?no}", "error: EMPTY: no"),
        ("${EMPTY:?}", "error: EMPTY: is not allowed to be empty"),
        ("${UNSET:?no}", "error: UNSET: no"),
        ("${UNSET?no}", "error: UNSET: no"),
        ("${UNSET?}", "error: UNSET: is not allowed to be unset"),
        ("${UNSET:?}", "error: UNSET: is not allowed to be unset"),
        ("${UNSET:?set $A first}", "error: UNSET: set one first"),
    ]);
}

#[test]
fn prefixes_and_suffixes() {
    check(&[
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE%.*}", "archive.tar"),
        ("${FILE%%.*}", "archive"),
        ("${PATH_#/usr}", "/local/bin"),
        ("${PATH_#usr}", "/usr/local/bin"),
        ("${PATH_%/bin}", "/usr/local"),
        ("${PATH_%bin/}", "/usr/local/bin"),
        ("${PATH_##*/}", "bin"),
        ("${PATH_%/*}", "/usr/local"),
        ("${PATH_%%/*}", ""),
        ("${PATH_#/}", "usr/local/bin"),
        ("${PATH_#*/}", "usr/local/bin"),
        ("${PATH_##/*/}", "bin"),
        ("${A#?}", "ne"),
        ("${A%?}", "on"),
        ("${A##??}", "e"),
        ("${A#*}", "one"),
        ("${A##*}", ""),
        ("${A%*}", "one"),
        ("${A%%*}", ""),
        ("${A#}", "one"),
        ("${A%}", "one"),
        ("${A#one}", ""),
        ("${A#ones}", "one"),
        ("${A#n}", "one"),
        ("${EMPTY#x}", ""),
        ("${UNSET#x}", ""),
        ("${UNSET%x}", ""),
        ("${KO#?}", "국어"),
        ("${KO%어}", "한국"),
        ("${KO%%국*}", "한"),
        ("${STAR#a\\*}", "b?c\\d"),
        ("${STAR#*\\?}", "c\\d"),
        ("${STAR%\\\\d}", "a*b?c"),
        ("${STAR#a.}", "a*b?c\\d"),
        ("${PATH_#${UNSET:-/usr}}", "/local/bin"),
        ("${PATH_%/${UNSET:-bin}}", "/usr/local"),
        ("${B#*' '}", "words"),
        ("${B#\"two \"}", "words"),
        ("${A#[o]}", "one"),
        ("${A#(one)}", "one"),
        ("${FILE%.gz}.xz", "archive.tar.xz"),
        ("${LINES#*}", "x\ny"),
        ("${LINES##*}", "\ny"),
        ("${A#\\n}", "error: invalid pattern `\\n`: invalid escape `\\n`"),
        ("${A%\\n}", "error: invalid pattern `\\n`: invalid escape `\\n`"),
    ]);
}

#[test]
fn replacements() {
    check(&[
        ("${A/n/N}", "oNe"),
        ("${PATH_/\\//_}", "_usr/local/bin"),
        ("${PATH_//\\//_}", "_usr_local_bin"),
        ("${FILE/./-}", "archive-tar.gz"),
        ("${FILE//./-}", "archive-tar-gz"),
        ("${FILE/.*/}", "archive"),
        ("${FILE/*./}", "gz"),
        ("${FILE//?/x}", "xxxxxxxxxxxxxx"),
        ("${A/x/y}", "one"),
        ("${A/o/}", "ne"),
        ("${A//}", "error: missing `/` in `${A/pattern/replacement}`"),
        ("${A/o/$B}", "two wordsne"),
        ("${A/${UNSET:-o}/0}", "0ne"),
        ("${A/o/\\}}", "\\}ne"),
        ("${A/n/'/'}", "o/e"),
        ("${B/ /_}", "two_words"),
        ("${B// /}", "twowords"),
        ("${KO/국/-}", "한-어"),
        ("${EMPTY/a/b}", ""),
        ("${UNSET/a/b}", ""),
        ("${STAR/\\*/-}", "a-b?c\\d"),
        ("${STAR//\\?/-}", "a*b-c\\d"),
        ("${A/one/$$1}", "1"),
        ("${A/o", "error: missing `/` in `${A/pattern/replacement}`"),
        ("${A/o/x", "error: missing `}` after `${`"),
        ("${A/\\x/y}", "error: invalid pattern `\\x`: invalid escape `\\x`"),
    ]);
}

#[test]
fn quotes_in_patterns_make_escapes_ordinary() {
    let variable = |name: &str| Some(if name == "S" { "a\\bc" } else { "x*y" }.to_owned());
    for (text, expected) in [
        ("${S#'a\\b'}", "c"),
        ("${S#\"a\\b\"}", "c"),
        ("${S%'\\bc'}", "a"),
        ("${S/'\\'/-}", "a-bc"),
        ("${S/\"\\b\"/-}", "a-c"),
        ("${S//\\\\/-}", "a-bc"),
        ("${S/\"\\\\\"/-}", "a-bc"),
        // Quotes do not make `*` and `?` ordinary, and a replacement keeps its escapes.
        ("${W#'x*'}", "*y"),
        ("${W##'x*'}", ""),
        ("${W/'?'/-}", "-*y"),
        ("${W/x/'\\'}", "\\*y"),
        ("${W/x/\"\\n\"}", "\\\\n*y"),
    ] {
        assert_eq!(Expander::new('\\').expand(text, &variable).unwrap().text, expected, "{text}");
    }
    let invalid = Expander::new('\\').expand("${S#a\\b}", &variable);
    assert!(matches!(invalid, Err(ExpandError::InvalidPattern { .. })), "{invalid:?}");
}

#[test]
fn dollars_in_the_replacement_of_every_match() {
    let variable = |name: &str| Some(if name == "M" { "$0$0-$x" } else { "aXbX" }.to_owned());
    for (text, expected) in [("${T//X/$M}", "aXX-bXX-"), ("${T/X/$M}", "a$0$0-$xbX")] {
        assert_eq!(Expander::new('\\').expand(text, &variable).unwrap().text, expected, "{text}");
    }
}

#[test]
fn positional_and_special_parameters_are_never_set() {
    for name in ["0", "1", "2", "7", "9", "10", "001", "999", "@", "*", "#", "?", "-", "$", "!"] {
        check(&[
            (&format!("${name}"), ""),
            (&format!("${{{name}}}"), ""),
            (&format!("x${{{name}}}y"), "xy"),
            (&format!("${{{name}:+set}}"), ""),
            (&format!("${{{name}:-unset}}"), "unset"),
            (&format!("${{{name}+set}}y"), "y"),
            (&format!("${{{name}-unset}}y"), "unsety"),
            (&format!("'${name}'"), &format!("${name}")),
        ]);
    }
    check(&[
        ("$1a", "a"),
        ("$999a", "a"),
        ("$001a", "a"),
        ("$@a", "a"),
        ("$@@@", "@@"),
        ("$$$A", "one"),
        ("$1$A", "one"),
    ]);
}

#[test]
fn braces_that_close_nothing() {
    check(&[
        ("${A}}", "one}"),
        ("${UNSET:-x}}", "x}"),
        ("${UNSET:-x {y}", "x {y"),
        ("${UNSET:-x ${y}", "error: missing `}` after `${`"),
        ("${A:+${B}:}z", "two words:z"),
        ("${UNSET:-\\${A}z}y", "${Az}y"),
        ("${UNSET:-\\$A:}", "$A:"),
        ("\\${}", "${}"),
        ("x\\${}y", "x${}y"),
        ("${.}", "error: unsupported modifier `.` in `${....}`"),
    ]);
}

#[test]
fn a_heredoc_is_one_word() {
    for (text, expected) in [
        ("cat << EOF >x", &["cat", "<< EOF", ">x"][..]),
        ("cat <<- \t'E F' x", &["cat", "<<-", "E F", "x"]),
        ("cat <<EOF", &["cat", "<<EOF"]),
        ("a < b", &["a", "<", "b"]),
        ("a <<< b", &["a", "<<<", "b"]),
    ] {
        assert_eq!(Expander::new('\\').expand(text, &variable).unwrap().words, expected, "{text}");
    }
    check(&[("cat << EOF", "cat << EOF"), ("a < b", "a < b"), ("<", "<"), ("<<", "<<"), ("<<  ", "<<  ")]);
}

#[test]
fn malformed_substitutions() {
    check(&[
        ("${", "error: missing `}` after `${`"),
        ("${A", "error: missing `}` after `${`"),
        ("x${A y", "error: unsupported modifier ` ` in `${A ...}`"),
        ("${A:", "error: missing `}` after `${`"),
        ("${A:-", "error: missing `}` after `${`"),
        ("${A:-x", "error: missing `}` after `${`"),
        ("${A:-${B}", "error: missing `}` after `${`"),
        ("${}", "error: bad substitution: a variable's name must follow `${`"),
        ("${:}", "error: bad substitution: a variable's name must follow `${`"),
        ("${:-x}", "error: bad substitution: a variable's name must follow `${`"),
        ("${{A}}", "error: bad substitution: a variable's name must follow `${`"),
        ("${A:x}", "error: unsupported modifier `:x` in `${A:x...}`"),
        ("${A:}", "error: unsupported modifier `:}` in `${A:}...}`"),
        ("${A:#p}", "error: unsupported modifier `:#` in `${A:#...}`"),
        ("${A^}", "error: unsupported modifier `^` in `${A^...}`"),
        ("${A,,}", "error: unsupported modifier `,` in `${A,...}`"),
        ("${A!}", "error: unsupported modifier `!` in `${A!...}`"),
        ("${A[0]}", "error: unsupported modifier `[` in `${A[...}`"),
        ("${#A}", "error: unsupported modifier `A` in `${#A...}`"),
        ("${ A}", "error: unsupported modifier ` ` in `${ ...}`"),
    ]);
}

#[test]
fn another_escape_character() {
    let rules = Expander::new('`');
    for (text, expected) in [
        ("C:\\$A", "C:\\one"),
        ("`$A", "$A"),
        ("``$A", "`one"),
        ("\"`\"\"", "\""),
        ("\"a`b\"", "a`b"),
        ("a`", "a"),
        ("'`'", "`"),
        ("${UNSET:-`}}", "}"),
    ] {
        assert_eq!(rules.expand(text, &variable).unwrap().text, expected, "{text}");
    }
}

#[test]
fn words_are_split_after_the_expansion_and_not_in_quotes() {
    for (text, expected) in [
        ("$A $B", &["one", "two", "words"][..]),
        ("\"$B\"", &["two words"]),
        ("'a b' c", &["a b", "c"]),
        ("a\\ b c", &["a b", "c"]),
        ("  a  b  ", &["a", "b"]),
        ("x$B", &["xtwo", "words"]),
        ("$EMPTY", &[]),
        ("\"\"", &[]),
        ("a\"\"b", &["ab"]),
        ("${UNSET:-p q}", &["p", "q"]),
        ("\"${UNSET:-p q}\"r", &["p qr"]),
        ("$LINES", &["x", "y"]),
        ("a\tb\nc", &["a", "b", "c"]),
        ("\"a \"b", &["a b"]),
        ("80 $UNSET 443", &["80", "443"]),
    ] {
        assert_eq!(Expander::new('\\').expand(text, &variable).unwrap().words, expected, "{text}");
    }
}

#[test]
fn the_other_rules() {
    let usual = Expander::new('\\');
    let text = |rules: Expander, text: &str| rules.expand(text, &variable).unwrap().text;
    assert_eq!(text(Expander { keep_quotes: true, ..usual }, "'$A' \"$A\""), "'$A' \"one\"");
    assert_eq!(text(Expander { keep_escapes: true, ..usual }, "\\$A a\\b"), "\\$A a\\b");
    assert_eq!(text(Expander { ignore_quotes: true, ..usual }, "it's \"$A\" \\$A"), "it's \"one\" $A");
    let kept = Expander { keep_unset: true, ..usual };
    for unset in ["$X", "${X}", "${X:-y}", "${X+y}", "${X#y}", "${X%%y}", "${X/a/b}", "${X//a/b}"] {
        assert_eq!(text(kept, unset), unset);
    }
    assert_eq!(text(kept, "$A ${A:+$X}"), "one $X");
}

#[test]
fn names_are_told_apart_by_whether_they_are_set() {
    let expansion = Expander::new('\\').expand("$A ${X:-$Y} '$Z' ${A/$W/}", &variable).unwrap();
    assert_eq!(expansion.used.into_iter().collect::<Vec<_>>(), ["A"]);
    assert_eq!(expansion.unset.into_iter().collect::<Vec<_>>(), ["W", "X", "Y"]);
}

#[test]
fn limits_end_what_would_not() {
    let nested = |levels: usize| "${X:-".repeat(levels) + "x" + &"}".repeat(levels);
    assert_eq!(expand(&nested(NESTING_MAX)), "x");
    assert_eq!(expand(&nested(NESTING_MAX + 1)), ExpandError::TooDeep.to_string().replace("sub", "error: sub"));
    assert_eq!(expand(&nested(100_000)), format!("error: {}", ExpandError::TooDeep));
    let big = |_: &str| Some("x".repeat(EXPANDED_MAX_BYTES / 2));
    assert_eq!(Expander::new('\\').expand("$A$A$A", &big), Err(ExpandError::TooLong));
    assert_eq!(Expander::new('\\').expand("\"$A$A$A\"", &big), Err(ExpandError::TooLong));
    assert_eq!(Expander::new('\\').expand("${A//x/xxxx}", &big), Err(ExpandError::TooLong));
    let pattern = "${A#".to_owned() + &"?*".repeat(30_000) + "}";
    assert!(expand(&pattern).contains("too long"), "{:.200}", expand(&pattern));
}

proptest::proptest! {
    #[test]
    fn any_text_is_expanded_or_refused(text in "[$\\{}:?#%/+\\-*'\"\\\\A-C ]{0,60}", escape in "[\\\\`]") {
        let rules = Expander::new(escape.chars().next().unwrap());
        for rules in [rules, Expander { keep_unset: true, keep_quotes: true, keep_escapes: true, ..rules }] {
            let _ = rules.expand(&text, &variable);
        }
    }

    #[test]
    fn text_without_special_characters_stays(text in "[^$'\"\\\\]{0,60}") {
        proptest::prop_assert_eq!(expand(&text), text);
    }

    #[test]
    fn single_quotes_keep_everything(text in "[^']{0,60}") {
        proptest::prop_assert_eq!(expand(&format!("'{text}'")), text);
    }
}
