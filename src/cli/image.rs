//! `orlop image`: pull, import, list and remove images.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use super::image_pull::{self, PullArgs};
use super::print;
use crate::image::{Image, ImageStore, Progress, Reference, RootFsConfig, familiar};

/// Columns are this far apart, as kubectl has them.
const GAP: &str = "   ";

/// The arguments of `orlop image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Pull an image from its registry
    Pull(PullArgs),
    /// Import an OCI archive, a docker archive, or the tar file of a root file system
    Import(ImportArgs),
    /// List the images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove names of images, and the images that have no other name
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The archive, plain or compressed by gzip or zstd; - is standard input
    file: PathBuf,
    /// The image's name; a root file system needs one, an image has its own
    name: Option<String>,
    /// Default command of a root file system: once for all words, or once for each word
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Default entrypoint of a root file system, given like --cmd
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Environment variable of a root file system
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

#[derive(Debug, Args)]
struct LsArgs {
    /// Print JSON
    #[arg(long, short)]
    output: Option<Output>,
    /// Print the images' IDs alone
    #[arg(long, short)]
    quiet: bool,
    /// Show the digests under which registries have the images
    #[arg(long)]
    digests: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// The images with their configurations and layers
    Json,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// Names, or IDs of which the first digits suffice
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Runs one of the commands on the store in `images_dir`.
///
/// # Errors
///
/// What stopped the command, as one sentence with its causes. `rm` goes on
/// with the other images, prints its errors itself and ends with exit code 1.
pub fn run(args: &ImageArgs, images_dir: &Path) -> anyhow::Result<ExitCode> {
    let store = ImageStore::open(images_dir)?;
    let mut out = Vec::new();
    let code = match &args.command {
        ImageCommand::Pull(args) => {
            image_pull::run(&store, args, &mut out).map(|()| ExitCode::SUCCESS)
        }
        ImageCommand::Import(args) => import(&store, args, &mut out).map(|()| ExitCode::SUCCESS),
        ImageCommand::Ls(args) => list(&store, args, &mut out).map(|()| ExitCode::SUCCESS),
        ImageCommand::Rm(args) => remove(&store, args, &mut out),
    };
    print::say(format_args!("{}", String::from_utf8_lossy(&out)))?;
    code
}

fn import(store: &ImageStore, args: &ImportArgs, out: &mut impl Write) -> anyhow::Result<()> {
    for entry in &args.env {
        if entry
            .split_once('=')
            .is_none_or(|(name, _)| name.is_empty())
        {
            anyhow::bail!("--env {entry:?} is not NAME=VALUE");
        }
    }
    let config = RootFsConfig {
        entrypoint: command("--entrypoint", &args.entrypoint)?,
        cmd: command("--cmd", &args.cmd)?,
        env: args.env.clone(),
    };
    let bar = progress_bar();
    let report = |progress| show(&bar, progress);
    let imported = store.import_with(&args.file, args.name.as_deref(), &config, &report);
    bar.finish_and_clear();
    for image in imported? {
        let layers = match image.layers.len() {
            1 => "1 layer".to_owned(),
            count => format!("{count} layers"),
        };
        for name in &image.names {
            let (name, id, size) = (familiar(name), short(&image.id), size(image.size));
            writeln!(out, "image/{name} imported (sha256:{id}, {layers}, {size})")?;
        }
    }
    Ok(())
}

/// The words of a command: one option is split like a shell would, of
/// several each is a word.
fn command(option: &str, values: &[String]) -> anyhow::Result<Vec<String>> {
    match values {
        [line] => split(line).with_context(|| format!("{option} {line:?} has an open quote")),
        words => Ok(words.to_vec()),
    }
}

/// Splits a line at blanks; quotes and backslashes work as in sh(1). None
/// when a quote is not closed.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => loop {
                let word = word.get_or_insert_default();
                match letters.next()? {
                    '\'' => break,
                    letter => word.push(letter),
                }
            },
            '"' => loop {
                let word = word.get_or_insert_default();
                match letters.next()? {
                    '"' => break,
                    '\\' => match letters.next()? {
                        letter @ ('"' | '\\' | '$' | '`') => word.push(letter),
                        letter => word.extend(['\\', letter]),
                    },
                    letter => word.push(letter),
                }
            },
            '\\' => word.get_or_insert_default().push(letters.next()?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Some(words)
}

fn list(store: &ImageStore, args: &LsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let images = store.list()?;
    if args.quiet {
        for image in &images {
            writeln!(out, "{}", image.id)?;
        }
    } else if args.output.is_some() {
        serde_json::to_writer_pretty(&mut *out, &serde_json::json!({ "images": images }))?;
        writeln!(out)?;
    } else {
        table(&images, args.digests, Timestamp::now(), out)?;
    }
    Ok(())
}

fn table(
    images: &[Image],
    digests: bool,
    now: Timestamp,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let header = ["IMAGE", "TAG", "DIGEST", "IMAGE ID", "SIZE", "CREATED"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for image in images {
        let created = ago(image.created.unwrap_or(image.imported), now);
        let row = |name: String, tag: String, digest: Option<&String>| {
            let digest = digest.or(image.digest.as_ref());
            vec![
                name,
                tag,
                digest.map_or_else(|| "<none>".to_owned(), String::clone),
                short(&image.id).to_owned(),
                size(image.size),
                created.clone(),
            ]
        };
        if image.names.is_empty() {
            rows.push(row("<none>".to_owned(), "<none>".to_owned(), None));
        }
        for name in &image.names {
            let digest = image.pulled.get(name);
            rows.push(match name.parse::<Reference>() {
                Ok(name) => row(
                    name.familiar_name(),
                    name.tag().unwrap_or("<none>").to_owned(),
                    digest,
                ),
                Err(_) => row(name.clone(), "<none>".to_owned(), digest),
            });
        }
    }
    if !digests {
        for row in &mut rows {
            row.remove(2);
        }
    }
    let mut widths = vec![0; rows[0].len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let (last, cells) = row.split_last().unwrap_or((&row[0], &[]));
        for (cell, width) in cells.iter().zip(&widths) {
            write!(out, "{cell:width$}{GAP}")?;
        }
        writeln!(out, "{last}")?;
    }
    Ok(())
}

fn remove(store: &ImageStore, args: &RmArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for image in &args.images {
        match store.remove(image) {
            Ok(removed) => {
                for name in &removed.names {
                    writeln!(out, "image/{} removed", familiar(name))?;
                }
                if let (true, Some(id)) = (removed.names.is_empty(), &removed.image) {
                    writeln!(out, "image/{id} removed")?;
                }
            }
            Err(error) => {
                print::note(format_args!("error: {:#}", anyhow::Error::from(error)));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The first 12 digits of an ID, as people know it.
pub(super) fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// A size in the decimal units that image tools use: `2.0 MB`.
pub(super) fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // What would print as 1000.0 is 1.0 of the next unit.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

/// How long ago something was, in one unit: `3 weeks ago`.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let units = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let fitting = units.into_iter().find(|(length, _)| seconds >= *length);
    let (length, unit) = fitting.unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("1 {unit} ago"),
        count => format!("{count} {unit}s ago"),
    }
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    // A template that is a constant either always parses or never does.
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Unpacking {
            number,
            of,
            read,
            size,
        } => {
            bar.set_message(format!("layer {number}/{of}"));
            bar.set_length(size);
            bar.set_position(read);
        }
        Progress::Present { number, of } => bar.set_message(format!("layer {number}/{of}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageConfig;

    #[test]
    fn sizes_have_one_decimal_and_a_unit() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1000), "1.0 kB");
        assert_eq!(size(1_999_000), "2.0 MB");
        assert_eq!(size(999_999), "1.0 MB");
        assert_eq!(size(u64::MAX), "18.4 EB");
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        let now: Timestamp = "2024-03-01T00:00:00Z".parse().unwrap();
        let told = |then: &str| ago(then.parse().unwrap(), now);
        assert_eq!(told("2024-03-01T00:00:00Z"), "0 seconds ago");
        assert_eq!(told("2024-02-29T23:59:00Z"), "1 minute ago");
        assert_eq!(told("2024-02-14T00:00:00Z"), "2 weeks ago");
        assert_eq!(told("1970-01-01T00:00:00Z"), "54 years ago");
        assert_eq!(told("2030-01-01T00:00:00Z"), "0 seconds ago");
    }

    #[test]
    fn a_command_is_split_like_a_shell_does() {
        let words = |line: &str| split(line).unwrap();
        assert_eq!(
            words("/bin/sh -c 'echo a b'"),
            ["/bin/sh", "-c", "echo a b"]
        );
        assert_eq!(
            words(r#"a\ b "c \"d\" \n" '' e"f"g"#),
            ["a b", r#"c "d" \n"#, "", "efg"]
        );
        assert!(words("  ").is_empty());
        assert_eq!(split("echo 'a"), None);
        let given = ["/bin/sh -c".to_owned(), "x y".to_owned()];
        assert_eq!(command("--cmd", &given).unwrap(), given);
    }

    #[test]
    fn import_and_removal_say_what_they_did() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("rootfs.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&file).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(1500);
        header.set_mode(0o755);
        tar.append_data(&mut header, "bin/sh", &[0; 1500][..])
            .unwrap();
        tar.finish().unwrap();
        let store = ImageStore::open(&place.path().join("images")).unwrap();
        let args = |name: Option<&str>, cmd: &str| ImportArgs {
            file: file.clone(),
            name: name.map(str::to_owned),
            cmd: vec![cmd.to_owned()],
            entrypoint: Vec::new(),
            env: Vec::new(),
        };
        let mut out = Vec::new();
        import(&store, &args(Some("busybox"), "sh -l"), &mut out).unwrap();
        let image = store.resolve("busybox").unwrap().unwrap();
        assert_eq!(image.config.cmd, ["sh", "-l"]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "image/busybox:latest imported (sha256:{}, 1 layer, 1.5 kB)\n",
                short(&image.id)
            )
        );

        let error = import(&store, &args(None, "sh"), &mut Vec::new()).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!("{file:?} does not say what its image is called: give a name after the file")
        );

        let mut out = Vec::new();
        let args = RmArgs {
            images: vec!["busybox".to_owned()],
        };
        remove(&store, &args, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "image/busybox:latest removed\n"
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_name() {
        let now: Timestamp = "2024-03-01T00:00:00Z".parse().unwrap();
        let image = |names: &[&str], digit: &str| Image {
            id: format!("sha256:{}", digit.repeat(64)),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            config: ImageConfig::default(),
            layers: Vec::new(),
            size: 1_987_654,
            created: None,
            imported: "2024-02-29T00:00:00Z".parse().unwrap(),
            digest: None,
            manifest: None,
            pulled: std::collections::BTreeMap::new(),
            platform: None,
        };
        let images = [
            image(&["docker.io/library/busybox:latest", "localhost/b:1"], "a"),
            image(&[], "b"),
        ];
        let mut out = Vec::new();
        table(&images, false, now, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "IMAGE         TAG      IMAGE ID       SIZE     CREATED\n\
             busybox       latest   aaaaaaaaaaaa   2.0 MB   1 day ago\n\
             localhost/b   1        aaaaaaaaaaaa   2.0 MB   1 day ago\n\
             <none>        <none>   bbbbbbbbbbbb   2.0 MB   1 day ago\n"
        );
    }
}
