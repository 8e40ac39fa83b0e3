//! Enums whose variants have names.

/// Defines an enum with a name for each variant: `ALL`, `as_str`, and `named`, which finds the variant of a name.
macro_rules! named {
    ($(#[$attribute:meta])* $type:ident { $($(#[$of_variant:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$of_variant])* $variant,)*
        }

        impl $type {
            /// In the order of the discriminants.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.as_str() == name)
            }
        }
    };
}

pub(crate) use named;
