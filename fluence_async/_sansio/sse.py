"""A temporary stand-in, to be replaced whole by the engineer of this room."""
import msgspec


class EventTooLarge(ValueError): pass
class ServerSentEvent(msgspec.Struct, frozen=True):
    event:str; data:str; id:str=""; retry:int|None=None
class SSEDecoder:
    def __init__(self,*,max_event=1<<24): self.b=b""; self.max=max_event
    @property
    def mid_event(self): return bool(self.b) and not self.b.startswith(b":")
    def feed_lines(self,data):
        buf=self.b+data
        if not buf.startswith(b"data: {"): return None
        end=buf.rfind(b"}\n\n")+1
        if not end: return None
        raw=buf[6:end]; lines=raw.replace(b"}\n\ndata: {",b"}\n{")
        n=(len(raw)-len(lines))//7
        if lines.count(b"\n")!=n or b"\r" in lines: return None
        if b"\n\n" in buf[end+2:]: return None
        self.b=buf[end+2:]
        return lines,n+1
    def feed(self,data):
        self.b+=data; out=[]
        while b"\n\n" in self.b:
            e,_,self.b=self.b.partition(b"\n\n")
            name="message"; d=[]
            for l in e.split(b"\n"):
                if l.startswith(b"data:"): d.append(l[5:].lstrip().decode("utf8","replace"))
                if l.startswith(b"event:"): name=l[6:].strip().decode()
            if d: out.append(ServerSentEvent(name,"\n".join(d)))
        return out


def encode_event(data, *, event=None, id=None, retry=None):
    return "".join(f"data: {l}\n" for l in data.split("\n")).encode() + b"\n"
