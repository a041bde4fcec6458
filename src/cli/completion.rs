//! `orlop completion` and the man pages: what other programs want to know of the
//! command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use super::print;

/// `orlop completion` on the command line.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// The shell: bash, zsh, fish, elvish or powershell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// `orlop man` on the command line.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// An existing directory, such as /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// What bash does at the place of a pod's name: it asks orlop.
const BASH_PODS: &str = r#"
_orlop_pods() {
    _orlop "$@"
    local verb="" word namespace=()
    local index
    for ((index = 1; index < COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        case "$word" in
            -n|--namespace) namespace=(-n "${COMP_WORDS[index+1]}") ;;
            attach|cp|delete|describe|edit|exec|get|label|annotate|logs|patch|wait)
                [[ -z "$verb" ]] && verb="$word" ;;
        esac
    done
    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
    [[ -z "$verb" || "$current" == -* ]] && return 0
    case "$verb:$before" in
        attach:attach|exec:exec|logs:logs|cp:cp|*:pod|*:pods|*:po)
            local pods
            pods="$(orlop get pods "${namespace[@]}" -o 'jsonpath={.items[*].metadata.name}' 2>/dev/null)"
            COMPREPLY=($(compgen -W "$pods" -- "$current")) ;;
        *:get|*:delete|*:describe|*:edit|*:label|*:annotate|*:patch|*:wait)
            COMPREPLY=($(compgen -W "pods" -- "$current")) ;;
        *) [[ "$before" == -c || "$before" == --container ]] && {
            local containers
            containers="$(orlop get pods "${namespace[@]}" -o 'jsonpath={.items[*].spec.containers[*].name}' 2>/dev/null)"
            COMPREPLY=($(compgen -W "$containers" -- "$current"))
        } ;;
    esac
    return 0
}
complete -F _orlop_pods -o nosort -o bashdefault -o default orlop
"#;

/// Prints the script that completes orlop's command line in a shell.
///
/// # Errors
/// That it cannot be written.
pub fn run(args: &CompletionArgs, command: &mut Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "orlop", &mut script);
    let mut script = String::from_utf8(script).context("the script is no text")?;
    if args.shell == Shell::Bash {
        script.push_str(BASH_PODS);
    }
    print::say(format_args!("{script}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `orlop.1` and one page for every verb.
///
/// # Errors
/// That a file cannot be written.
pub fn man(args: &ManArgs, command: Command) -> Result<ExitCode> {
    let directory = &args.directory;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("cannot write man pages into {directory:?}"))?;
    Ok(ExitCode::SUCCESS)
}
