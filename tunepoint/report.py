"""stub"""
def write_report(folder, content, measurements): pass
