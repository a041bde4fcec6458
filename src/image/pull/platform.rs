//! Platforms, and which image of an index fits one (image-spec,
//! `image-index.md`).

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Arch, Descriptor, Os};

use super::PullError;

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn of_this_machine() -> Self {
        let architecture = Arch::default().to_string();
        let machine = rustix::system::uname();
        let machine = machine.machine().to_string_lossy();
        let variant = match architecture.as_str() {
            "arm64" => Some("v8".to_owned()),
            // A 64-bit kernel runs all that 32-bit programs know.
            "arm" if machine.starts_with("aarch64") => Some("v8".to_owned()),
            "arm" => machine
                .strip_prefix("armv")
                .and_then(|rest| rest.chars().next())
                .map(|digit| format!("v{digit}")),
            _ => None,
        };
        Self {
            os: "linux".to_owned(),
            architecture,
            variant,
        }
    }

    /// Whether an image that says this about itself is for the platform.
    pub(super) fn takes(&self, os: &Os, architecture: &Arch) -> bool {
        os.to_string() == self.os && architecture.to_string() == self.architecture
    }

    /// The best of an index's descriptors for the platform. What says nothing
    /// about itself is taken when nothing else fits.
    pub(super) fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let rated = manifests.iter().enumerate().filter_map(|(place, one)| {
            let rating = match one.platform() {
                None => 0,
                Some(platform) => {
                    if !self.takes(platform.os(), platform.architecture()) {
                        return None;
                    }
                    self.rating(platform.variant().as_deref())?
                }
            };
            // Of equals the first.
            Some(((rating, std::cmp::Reverse(place)), one))
        });
        rated.max_by_key(|(rating, _)| *rating).map(|(_, one)| one)
    }

    /// How well a variant fits: the newest that the machine knows fits best.
    fn rating(&self, variant: Option<&str>) -> Option<u32> {
        let level = |variant: Option<&str>| -> Option<u32> {
            let usual = match self.architecture.as_str() {
                "arm64" => "v8",
                "arm" => "v7",
                _ => "v1",
            };
            let variant = variant.filter(|text| !text.is_empty()).unwrap_or(usual);
            let digits = variant.strip_prefix('v')?;
            // Parts behind a dot are extensions: v8.2 and v9 are other levels.
            let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
            Some(major.parse::<u32>().ok()? * 100 + minor.parse::<u32>().ok()?)
        };
        match (level(variant), level(self.variant.as_deref())) {
            (Some(offered), Some(known)) => (offered <= known).then_some(offered + 1),
            _ => (variant == self.variant.as_deref()).then_some(1),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PullError;

    /// Reads `linux/arm64` or `linux/arm/v7`; the usual other names of
    /// architectures are understood.
    fn from_str(text: &str) -> Result<Self, PullError> {
        let bad = || PullError::BadPlatform {
            platform: text.to_owned(),
        };
        let word = |part: &str| {
            let fits =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !part.is_empty() && part.bytes().all(fits)
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(bad()),
        };
        let (architecture, usual) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" | "arm64" => ("arm64", Some("v8")),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "arm" => ("arm", Some("v7")),
            "i386" | "i686" | "x86" => ("386", None),
            other => (other, None),
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.or(usual).map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifests(platforms: &[&str]) -> Vec<Descriptor> {
        let list = platforms.iter().enumerate().map(|(place, text)| {
            let parts: Vec<&str> = text.split('/').collect();
            let mut platform = serde_json::json!({"os": parts[0], "architecture": parts[1]});
            if let Some(variant) = parts.get(2) {
                platform["variant"] = serde_json::json!(variant);
            }
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{}", format!("{place:02x}").repeat(32)),
                "size": 1,
                "platform": platform,
            })
        });
        list.map(|value| serde_json::from_value(value).unwrap())
            .collect()
    }

    fn chosen(wanted: &str, offered: &[&str]) -> Option<usize> {
        let list = manifests(offered);
        let platform: Platform = wanted.parse().unwrap();
        let found = platform.choose(&list)?;
        list.iter().position(|one| one.digest() == found.digest())
    }

    #[test]
    fn the_newest_variant_that_the_machine_knows_is_chosen() {
        let all = [
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm64/v8",
            "linux/amd64",
            "linux/amd64/v3",
            "windows/amd64",
            "unknown/unknown",
        ];
        assert_eq!(chosen("linux/arm/v7", &all), Some(1));
        assert_eq!(chosen("linux/arm/v6", &all), Some(2));
        assert_eq!(chosen("linux/arm/v8", &all), Some(1));
        assert_eq!(chosen("linux/aarch64", &all), Some(3));
        assert_eq!(chosen("linux/x86_64", &all), Some(4));
        assert_eq!(chosen("linux/amd64/v3", &all), Some(5));
        assert_eq!(chosen("linux/s390x", &all), None);
        assert_eq!(chosen("linux/arm64", &["linux/arm64"]), Some(0));
    }

    #[test]
    fn texts_that_are_no_platform_are_refused() {
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert_eq!(
            "linux/armhf".parse::<Platform>().unwrap().to_string(),
            "linux/arm/v7"
        );
    }
}
