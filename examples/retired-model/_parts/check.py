import glob,collections
L="furniture clothing electronics books toys garden sports kitchen".split()
n=0;d=collections.Counter();a=0;seen=set();s=set();wl=[]
for f in sorted(glob.glob('p*.txt')):
    for l in open(f):
        l=l.rstrip('\n');p=l.split('|')
        if len(p)!=4: print('BAD',f,l);continue
        assert p[1] in L,l
        if p[2] not in L+['','~'] or p[2]==p[1]: print('ALT',l)
        n+=1;d[p[1]]+=1;a+=p[2] in L;s.add(p[0])
        w=len(p[3].split());wl.append(w)
        if w>45 or w<4: print('LEN',w,l)
        if p[3].lower() in seen: print('DUP',l)
        seen.add(p[3].lower())
print(n,d,'alt',a,'sellers',len(s),'short',sum(w<8 for w in wl),sum(wl)/n)
