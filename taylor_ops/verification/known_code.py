"""The code of the versions of this project, by which the code of a bundle of others is told apart from any other.

A change of `taylor_ops/modeling/taylor_mlp.py` or of the template in `taylor_ops/conversion/modeling_files.py` adds a
line here. None is removed: bundles stay.
"""

LAYERS = frozenset(
    {
        "cddb52e97f4f8adbc64d587652074096459f1053490b7988cf3e70519b62c8b3",
        "d1ccec36ef5de6288664fd49f82cb90539641b3bc215ed137fca338a0813e369",
        "e7e8cf6b3be74000712bd19df6a3423e408304ff6b1ef10c97bda950d1c51afa",
        "bb4dbf174326f82ff2cfffb3a66427119691cfd7da3811acdf49b4fc839ddafe",
        "2e078213d2deee629062e6946b9c9462ce53ca28c93b3b85ce60adfad0f0ef5a",
        "eb14f140465632aa0dc660b312aac5de7cff481831528c2e56a587277e85e751",
        "ef1dd0b42507537bd3e5b9335482c8f5aa881ed316d0bb1a154ea90c0f404528",
        "4c2eeb3314a4fce235394761fef2e925c46da310b6491366973ea638662931ee",
        "a4f6493471eda24cde8be7516693eab44cc152835505f13b010afbb738e911c7",
        "65a27d0774d613e7d62d10086ac27524cee6e9a4e5a46afef09d5f72960e7bf3",
        "ccd90381b96e07bb8654d380a6858dc89d32eeef3cae2a1f0fd43a005d5723d4",
        "79551dbade2340e9947a25a7d0bfedc97bf5f4d51bedae7d7934bf000370eb43",
        "bd4102ecdf0ad6b4ec358fdd2e991abe09064f5fd9d175f8e62fe49cfff8d231",
        "fa82718a99e8fe1690aecda0075069109f750ff3f9cce90c8e521146337ebf60",
        "4863c9d32656a05f492bbcb99f0b4d7d7764f036510c27623e9d95812f355b5b",
        "e2f5d2815e92970ec976c30981690f6072023e78398df9528ed0341c1c3ac9ab",
        "da569a3b46c1401edd2e3a7e49edb0d480c16eb9c280ef9ab81166763604bc24",
        "2fc3c82877736c531c0c4967c5f2ec547cd54565f78f619ed1bdc885beb2b544",
        "67889a1014464787de5cb7a38c31517b56d3ec2b40c46a47353e18c87572d4ff",
        "f3fe7a7a723bbc8d9971cd82ed85cb9db877baaf8a04e197e4dbe72fbf55ba42",
    }
)
"""SHA-256 of each version of `taylor_mlp.py`."""

CLASSES = frozenset(
    {
        "974a4d83e7151bd8ba1d097bf55ae4df7f56f805da156eb01c8791405cf916a7",
    }
)
"""SHA-256 of each version of `modeling_taylor.py`, with the names of the architecture left open as in its template."""
