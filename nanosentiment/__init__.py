"""What the scripts share. `from nanosentiment import Classifier` is the way in from Python."""

__all__ = ['Classifier']


def __getattr__(name):
    # loaded on first use, so that a script that needs no torch does not wait for it
    if name == 'Classifier':
        from nanosentiment.checkpoint import Classifier

        return Classifier
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
