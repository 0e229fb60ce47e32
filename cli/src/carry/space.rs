//! The space's side of an export and an import: stock GNU find, tar and coreutils over SSH with the pinned host key.
//!
//! | script | reads | prints |
//! |---|---|---|
//! | [`LIST`] | paths, each ended by a zero | what lies below, see `listing` |
//! | [`TAKE`] | names | their tar stream, from a byte on; the same each time while they are unchanged |
//! | [`STAGE`] | a part | how long the staged stream is now |
//! | [`UNPACK`] | names, then a tar stream unless one is staged | the digest of each part of the stream that is made of them again |
//! | [`COMPARE`] | a tar stream | where the space differs |
//!
//! Invariant: a script is a constant and its words are numbers and names of ours; names of files travel over standard input
//! alone, so no shell ever sees one. What comes back is bounded, and a space that says nothing is waited for so long only.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use crate::exit::{Code, Failure, Outcome};
use crate::settings::Folders;
use crate::show::text::plain;
use crate::ssh;

/// Prints what lies below the paths that it reads. No other file system, no [`super::listing::PASSING`].
pub const LIST: &str = r#"find -files0-from - -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/lib/apt/lists \) -prune -o "$@" -printf "%y %s %b %T@ %C@ %D:%i %n %p\0"; printf "end %s\0" $?"#;

/// How tar writes, so that the same files are the same bytes: no access times, no process numbers (version 1.0 of sparse files has one), holes by contents.
macro_rules! create {
    () => {
        r#"LC_ALL=C tar --create --file=- --directory=/ --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --sparse --sparse-version=0.0 --hole-detection=raw --xattrs "--xattrs-include=*" --acls --numeric-owner --no-recursion --null --verbatim-files-from"#
    };
}

/// The tar stream of the names that it reads, from its first word's byte on; ends as tar did.
pub const TAKE: &str = concat!(
    r#"exec 4>&1; s=$({ { "#,
    create!(),
    r#" --files-from=-; echo $? >&3; } | tail -c "+$1" >&4; } 3>&1); exit $s"#
);

/// Appends a part to the stream of that name, after so many bytes of it; says how long it is.
pub const STAGE: &str = r#"umask 077; d=/var/tmp/steading-import; mkdir -p $d && cd $d && touch "$1" && [ $(stat -c %s "$1") -ge $2 ] && truncate -s $2 "$1" && cat >>"$1" && sync "$1" && echo "has $(stat -c %s "$1")""#;

/// Unpacks a stream (`-`: after the names), and digests what the space makes of the names now, cut as the words say.
pub const UNPACK: &str = concat!(
    r#"f=$1; n=$2; shift 2; l=$(mktemp) && head -c $n >$l || exit 9; [ $f = - ] || f=/var/tmp/steading-import/$f; [ $f = - ] || [ -e $f ] || { rm -f $l; echo gone; exit; }; "#,
    r#"LC_ALL=C tar --extract --file=$f --directory=/ --preserve-permissions --xattrs "--xattrs-include=*" --acls --numeric-owner; "#,
    r#"echo "tar $?"; [ $# = 0 ] || "#,
    create!(),
    r#" --files-from=$l | for n; do echo "sum $(head -c $n | sha256sum)"; done; "#,
    r#"rm -f $l; [ $f = - ] || { rm -f $f; rmdir /var/tmp/steading-import; } 2>/dev/null"#
);

/// Where the space differs from a stream.
pub const COMPARE: &str =
    r#"LC_ALL=C tar --compare --file=- --directory=/ --xattrs --acls --numeric-owner 2>&1 | head -c 65536"#;

/// Free bytes where streams are staged.
pub const ROOM: &str = "df --output=avail -B1 /var/tmp | tail -1";

/// A space that neither sends nor takes a byte for so long is given up; it may have to read a large file first.
const SILENT_AFTER: Duration = Duration::from_secs(600);
/// What is kept of its complaints.
const MOST_COMPLAINTS: usize = 2048;
/// Complaints that are read at all, so that it does not block.
const PIECE: usize = 64 << 10;

/// A space that can be logged in to.
pub struct Space {
    /// Where the ssh files lie.
    pub folders: Folders,
    /// What it is called.
    pub name: String,
}

impl Space {
    /// Starts a script there.
    pub fn start(&self, script: &str, words: &[String]) -> Outcome<Talk> {
        let mut command = tokio::process::Command::from(ssh::command(&self.folders));
        command
            .args([
                "-o",
                "BatchMode=yes",
                "-o",
                "ConnectTimeout=30",
                "-o",
                "Compression=yes",
            ])
            .args(["-T", &self.name, "--"])
            .arg(format!("exec sh -c '{script}' steading {}", words.join(" ")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            Failure::new(Code::Unexpected, "OpenSSH was not run")
                .because(error)
                .next("install it (Debian: apt install openssh-client)")
        })?;
        let (Some(input), Some(output), Some(complaints)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::new(Code::Unexpected, "OpenSSH has no pipes"));
        };
        Ok(Talk {
            name: self.name.clone(),
            child,
            input: Some(input),
            output,
            complaints: tokio::spawn(last_words(complaints)),
        })
    }

    /// Runs a script on `input` and hands back what it printed, `most` bytes at most.
    pub async fn ask(&self, script: &str, words: &[String], input: Vec<u8>, most: usize) -> Outcome<Answer> {
        let mut talk = self.start(script, words)?;
        talk.feed(input);
        let printed = talk.read_all(most).await?;
        let ended = talk.end().await?;
        Ok(Answer { printed, ended })
    }
}

/// What a script printed, and how it ended.
pub struct Answer {
    /// Its standard output.
    pub printed: Vec<u8>,
    /// How.
    pub ended: Ended,
}

/// How a script ended.
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// The last line of its complaints, fit for a screen.
    pub words: String,
}

/// A script that runs in the space.
pub struct Talk {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    complaints: JoinHandle<Vec<u8>>,
}

impl Talk {
    /// Hands it all of its input, beside what is read meanwhile.
    pub fn feed(&mut self, input: Vec<u8>) {
        if let Some(mut pipe) = self.input.take() {
            tokio::spawn(async move {
                // Whoever does not read its input has failed otherwise, and says so.
                let _ = pipe.write_all(&input).await;
            });
        }
    }

    /// Hands it more of its input. False: it takes no more.
    pub async fn write(&mut self, bytes: &[u8]) -> Outcome<bool> {
        let Some(pipe) = self.input.as_mut() else {
            return Ok(false);
        };
        match tokio::time::timeout(SILENT_AFTER, pipe.write_all(bytes)).await {
            Ok(written) => Ok(written.is_ok()),
            Err(_) => Err(self.silent()),
        }
    }

    /// Its input is over.
    pub fn shut(&mut self) {
        self.input = None;
    }

    /// The next bytes that it printed; none at its end.
    pub async fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Outcome<&'b [u8]> {
        let read = tokio::time::timeout(SILENT_AFTER, self.output.read(buffer)).await;
        let count = read
            .map_err(|_| self.silent())?
            .map_err(|error| self.cut(&error.to_string()))?;
        Ok(buffer.get(..count).unwrap_or_default())
    }

    /// All that it prints.
    pub async fn read_all(&mut self, most: usize) -> Outcome<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = self.read(&mut buffer).await?;
            if piece.is_empty() {
                return Ok(all);
            }
            if all.len() + piece.len() > most {
                return Err(too_much(&self.name));
            }
            all.extend_from_slice(piece);
        }
    }

    /// Waits until it has ended; a login that was cut is a failure.
    pub async fn end(mut self) -> Outcome<Ended> {
        self.shut();
        let status = tokio::time::timeout(SILENT_AFTER, self.child.wait()).await;
        let status = status
            .map_err(|_| self.silent())?
            .map_err(|error| Failure::new(Code::Unexpected, "OpenSSH cannot be waited for").because(error))?;
        let complaints = (&mut self.complaints).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&complaints);
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let words: String = plain(last.unwrap_or_default()).chars().take(160).collect();
        match status.code() {
            // OpenSSH's own.
            Some(255) | None => Err(self.cut(&words)),
            Some(code) => Ok(Ended { code, words }),
        }
    }

    fn cut(&self, words: &str) -> Failure {
        let failure = Failure::new(Code::NodeSilent, format!("the login to {} was cut", self.name));
        let failure = if words.is_empty() {
            failure
        } else {
            failure.because(words)
        };
        failure.next(
            "the same command goes on where this one stopped; `steading spaces` shows what the node says",
        )
    }

    fn silent(&self) -> Failure {
        self.cut(&format!(
            "no byte came or went for {} minutes",
            SILENT_AFTER.as_secs() / 60
        ))
    }
}

/// Something in the space sends without end.
pub fn too_much(name: &str) -> Failure {
    Failure::new(Code::ProofFailed, format!("{name} sends more than it said that it holds"))
        .because("what is more was not kept")
        .next("look inside with `steading ssh`: its find or tar is not what it seems; --path takes one folder alone")
}

/// The end of what is read, all of which is read.
async fn last_words(mut from: tokio::process::ChildStderr) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; PIECE];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(MOST_COMPLAINTS));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script stands between single quotes: whatever the login's shell is, it takes it as one word.
    #[test]
    fn no_script_holds_a_single_quote_and_each_is_read_by_sh() {
        for script in [LIST, TAKE, STAGE, UNPACK, COMPARE, ROOM] {
            assert!(!script.contains('\''), "{script}");
            let read = std::process::Command::new("sh")
                .args(["-n", "-c", script])
                .status();
            assert!(read.unwrap().success(), "{script}");
        }
        for path in super::super::listing::PASSING {
            assert!(LIST.contains(&format!("-path {path} ")), "{path}");
        }
    }
}
